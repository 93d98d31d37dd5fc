//! Candle as a peer. It speaks the protocol of peer.py: candle-peer NAME THREADS, one JSON request a line, one answer a line.

use candle_core::{DType, Device, Module, Result, Tensor};
use candle_nn::{conv2d, linear, loss, ops, AdamW, Conv2d, Conv2dConfig, Linear, Optimizer, ParamsAdamW, VarBuilder, VarMap};
use serde_json::{json, Value};
use std::io::{BufRead, Write};
use std::time::Instant;

const NOT_MINE: &str = "not a work of this peer"; // bench/peers.go knows this sentence

type Step = Box<dyn FnMut() -> Result<()>>;

/// The main network up to its softmax; images are [batch, 1, 28, 28].
struct Net {
    conv1: Conv2d,
    conv2: Conv2d,
    dense1: Linear,
    dense2: Linear,
}

impl Net {
    fn new(v: VarBuilder) -> Result<Self> {
        Ok(Self {
            conv1: conv2d(1, 32, 3, Conv2dConfig::default(), v.pp("conv1"))?,
            conv2: conv2d(32, 64, 3, Conv2dConfig::default(), v.pp("conv2"))?,
            dense1: linear(1600, 128, v.pp("dense1"))?,
            dense2: linear(128, 10, v.pp("dense2"))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.conv1.forward(x)?.relu()?.max_pool2d(2)?;
        let x = self.conv2.forward(&x)?.relu()?.max_pool2d(2)?;
        self.dense2.forward(&self.dense1.forward(&x.flatten_from(1)?)?.relu()?)
    }
}

fn number(r: &Value, key: &str) -> usize {
    r[key].as_u64().unwrap_or(0) as usize
}

fn random(shape: &[usize]) -> Result<Tensor> {
    Tensor::rand(0f32, 1f32, shape, &Device::Cpu)
}

fn product(r: &Value) -> Result<Step> {
    let (m, n, k) = (number(r, "m"), number(r, "n"), number(r, "k"));
    let a = if r["ta"] == true { random(&[k, m])?.t()? } else { random(&[m, k])? };
    let b = if r["tb"] == true { random(&[n, k])?.t()? } else { random(&[k, n])? };
    Ok(Box::new(move || a.matmul(&b).map(|_| ())))
}

fn network(r: &Value, training: bool) -> Result<Step> {
    let n = number(r, "batch");
    let vars = VarMap::new();
    let net = Net::new(VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu))?;
    let x = random(&[n, 1, 28, 28])?;
    if !training {
        return Ok(Box::new(move || ops::softmax_last_dim(&net.forward(&x)?).map(|_| ())));
    }
    let y = Tensor::from_iter((0..n).map(|i| (i % 10) as u32), &Device::Cpu)?;
    let adam = ParamsAdamW { lr: 0.0, weight_decay: 0.0, eps: 1e-7, ..Default::default() };
    let mut optimizer = AdamW::new(vars.all_vars(), adam)?;
    Ok(Box::new(move || optimizer.backward_step(&loss::cross_entropy(&net.forward(&x)?, &y)?)))
}

fn prepare(r: &Value) -> std::result::Result<Step, String> {
    let made = match r["work"].as_str() {
        Some("sgemm") => product(r),
        Some("train_cnn") => network(r, true),
        Some("infer_cnn") => network(r, false),
        _ => return Err(NOT_MINE.into()),
    };
    let mut step = made.map_err(|e| e.to_string())?;
    for _ in 0..5 {
        step().map_err(|e| e.to_string())?;
    }
    Ok(step)
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

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let Some(threads) = args.get(2).and_then(|t| t.parse::<usize>().ok()) else {
        eprintln!("usage: candle-peer NAME THREADS");
        std::process::exit(2)
    };
    std::env::set_var("RAYON_NUM_THREADS", args[2].as_str()); // Candle and its products read it at their first use
    let blas = if candle_core::utils::has_mkl() { "MKL" } else { "gemm" };
    answer(json!({"ready": true, "name": args[1], "version": format!("0.11.1 ({blas})"), "threads": threads}));
    let (mut last, mut step): (String, Option<Step>) = (String::new(), None);
    for line in std::io::stdin().lock().lines().map_while(std::result::Result::ok) {
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
            step = None; // works come one after another: keep the memory of one
            match prepare(&r) {
                Ok(s) => step = Some(s),
                Err(e) => {
                    answer(json!({"error": e}));
                    continue;
                }
            }
            last = key;
        }
        let run = step.as_mut().expect("prepared above");
        let times = (0..iters).map(|_| {
            let t = Instant::now();
            run().map(|()| t.elapsed().as_secs_f64() * 1e3)
        });
        match times.collect::<Result<Vec<f64>>>() {
            Ok(ms) => answer(json!({"ms": ms, "rss_bytes": peak()})),
            Err(e) => answer(json!({"error": e.to_string()})),
        }
    }
}
