#!/usr/bin/env python3
"""Writes two files with the reference implementation: pip install safetensors==0.8.0 numpy==2.4.6

python.safetensors has scalars, empty tensors, names that need escapes, every element type that Joule reads, and one that it does not;
canonical.safetensors is the same without the types that Joule does not write.
"""
import pathlib

import numpy as np
from safetensors import TensorSpec, serialize

here = pathlib.Path(__file__).parent


keep = []  # TensorSpec holds a bare pointer


def entry(dtype, array):
    array = np.ascontiguousarray(array).reshape(array.shape)
    keep.append(array)
    return TensorSpec(dtype=dtype, shape=list(array.shape), data_ptr=array.ctypes.data, data_len=array.nbytes)


def bf16(values):
    return (np.array(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


tensors = {
    "dense/kernel": entry("float32", np.arange(6, dtype=np.float32).reshape(2, 3) / 4 - 1),
    "scalar": entry("float64", np.array(np.pi)),
    "empty": entry("float32", np.zeros((0, 3), np.float32)),
    "bf": entry("bfloat16", bf16([1, -2.5, 3.140625])),
    "half": entry("float16", np.array([0, -0.0, 1, -2, 65504, 2**-24, 2**-14, np.inf, -np.inf], np.float16)),
    "i8": entry("int8", np.array([-128, 0, 127], np.int8)),
    "u8": entry("uint8", np.array([[0, 255]], np.uint8)),
    "i32": entry("int32", np.array([-(2**31), 2**31 - 1], np.int32)),
    "i64": entry("int64", np.array([-(2**63), 2**63 - 1], np.int64)),
    "bool": entry("bool", np.array([True, False, True])),
    "u16": entry("uint16", np.array([65535], np.uint16)),
    'name "quoted" <ä&>': entry("float32", np.array([42], np.float32)),
}
metadata = {"made by": 'safetensors <0.8.0> "ä"'}
(here / "python.safetensors").write_bytes(serialize(tensors, metadata))
del tensors["half"], tensors["u16"]
(here / "canonical.safetensors").write_bytes(serialize(tensors, metadata))
