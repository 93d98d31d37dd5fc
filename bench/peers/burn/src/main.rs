//! Burn as a peer. It speaks the protocol of peer.py: burn-peer NAME THREADS, one JSON request a line, one answer a line.

use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::{CrossEntropyLoss, CrossEntropyLossConfig};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{Linear, LinearConfig, Relu};
use burn::optim::{AdamConfig, GradientsParams};
use burn::prelude::*;
use burn::tensor::{activation::softmax, Distribution};
use serde_json::{json, Value};
use std::io::{BufRead, Write};
use std::time::Instant;

const NOT_MINE: &str = "not a work of this peer"; // bench/peers.go knows this sentence

type Step = Box<dyn FnMut()>;

/// The main network up to its softmax; images are [batch, 1, 28, 28].
#[derive(Module, Debug)]
struct Net {
    conv1: Conv2d,
    conv2: Conv2d,
    pool: MaxPool2d,
    dense1: Linear,
    dense2: Linear,
    relu: Relu,
}

impl Net {
    fn new(d: &Device) -> Self {
        Self {
            conv1: Conv2dConfig::new([1, 32], [3, 3]).init(d),
            conv2: Conv2dConfig::new([32, 64], [3, 3]).init(d),
            pool: MaxPool2dConfig::new([2, 2]).init(),
            dense1: LinearConfig::new(1600, 128).init(d),
            dense2: LinearConfig::new(128, 10).init(d),
            relu: Relu::new(),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.pool.forward(self.relu.forward(self.conv1.forward(x)));
        let x = self.pool.forward(self.relu.forward(self.conv2.forward(x)));
        let x = self.relu.forward(self.dense1.forward(x.flatten(1, 3)));
        self.dense2.forward(x)
    }
}

fn number(r: &Value, key: &str) -> usize {
    r[key].as_u64().unwrap_or(0) as usize
}

fn random<const D: usize>(shape: [usize; D], d: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Uniform(0.0, 1.0), d)
}

fn product(r: &Value, d: &Device) -> Step {
    let (m, n, k) = (number(r, "m"), number(r, "n"), number(r, "k"));
    let a: Tensor<2> = if r["ta"] == true { random([k, m], d).transpose() } else { random([m, k], d) };
    let b: Tensor<2> = if r["tb"] == true { random([n, k], d).transpose() } else { random([k, n], d) };
    let d = d.clone();
    Box::new(move || {
        let _ = a.clone().matmul(b.clone());
        d.sync().expect("the device ends its work");
    })
}

fn network(r: &Value, d: &Device, training: bool) -> Step {
    let n = number(r, "batch");
    if !training {
        let (net, x, d) = (Net::new(d), random([n, 1, 28, 28], d), d.clone());
        return Box::new(move || {
            let _ = softmax(net.forward(x.clone()), 1);
            d.sync().expect("the device ends its work");
        });
    }
    let d = d.clone().autodiff();
    let x: Tensor<4> = random([n, 1, 28, 28], &d);
    let labels: Vec<i32> = (0..n as i32).map(|i| i % 10).collect();
    let y = Tensor::<1, Int>::from_data(labels.as_slice(), &d);
    let loss: CrossEntropyLoss = CrossEntropyLossConfig::new().init(&d);
    let mut optimizer = AdamConfig::new().with_epsilon(1e-7).init();
    let mut net = Some(Net::new(&d));
    Box::new(move || {
        let now = net.take().expect("put back below");
        let grads = loss.forward(now.forward(x.clone()), y.clone()).backward();
        let grads = GradientsParams::from_grads(grads, &now);
        net = Some(optimizer.step(0.0, now, grads));
        d.sync().expect("the device ends its work");
    })
}

/// Greatest resident memory of this process in bytes, 0 where the system does not say.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or("");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap_or(0) * 1024
}

fn answer(v: Value) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{v}").and_then(|()| out.flush()).is_err() {
        std::process::exit(1) // nobody listens any more
    }
}

#[cfg(feature = "cpu")]
fn device() -> Device {
    Device::cpu()
}

#[cfg(not(feature = "cpu"))]
fn device() -> Device {
    Device::flex()
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let Some(threads) = args.get(2).and_then(|t| t.parse::<usize>().ok()) else {
        eprintln!("usage: burn-peer NAME THREADS");
        std::process::exit(2)
    };
    std::env::set_var("RAYON_NUM_THREADS", args[2].as_str()); // read at the first use
    let d = device();
    answer(json!({"ready": true, "name": args[1], "version": "0.22.0", "threads": threads}));
    let (mut last, mut step): (String, Option<Step>) = (String::new(), None);
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let mut r: Value = match serde_json::from_str(&line) {
            Ok(r) => r,
            Err(e) => {
                answer(json!({"error": e.to_string()}));
                continue;
            }
        };
        let iters = number(&r, "iters");
        r["iters"] = Value::Null;
        let key = r.to_string();
        if key != last || step.is_none() {
            drop(step.take()); // works come one after another: keep the memory of one
            let mut made = match r["work"].as_str() {
                Some("sgemm") => product(&r, &d),
                Some("train_cnn") => network(&r, &d, true),
                Some("infer_cnn") => network(&r, &d, false),
                _ => {
                    answer(json!({"error": NOT_MINE}));
                    continue;
                }
            };
            (0..5).for_each(|_| made());
            step = Some(made);
            last = key;
        }
        let run = step.as_mut().expect("prepared above");
        let ms: Vec<f64> = (0..iters)
            .map(|_| {
                let t = Instant::now();
                run();
                t.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        answer(json!({"ms": ms, "rss_bytes": peak()}));
    }
}
