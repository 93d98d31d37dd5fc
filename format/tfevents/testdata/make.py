#!/usr/bin/env python3
"""Writes reference.tfevents with TensorBoard's own classes: pip install tensorboard==2.21.0 setuptools==80.9.0

The test of the package writes the same events and compares the bytes. This script also reads the file back through TensorBoard's
loader, so that what is compared is known to be shown. Given the path of another event file, it prints what TensorBoard finds there.
"""
import pathlib
import sys
import tempfile

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
from tensorboard.summary.writer.record_writer import RecordWriter


def scalars(**values):
    out = summary_pb2.Summary()
    for tag, value in values.items():
        out.value.add(tag=tag.replace("__", "/"), simple_value=value)
    return out


def text(tag, markdown, first):
    out = summary_pb2.Summary()
    value = out.value.add(tag=tag)
    value.tensor.CopyFrom(
        tensor_pb2.TensorProto(
            dtype=types_pb2.DT_STRING, tensor_shape=tensor_shape_pb2.TensorShapeProto(), string_val=[markdown.encode()]
        )
    )
    if first:
        value.metadata.plugin_data.plugin_name = "text"
        value.metadata.data_class = summary_pb2.DATA_CLASS_TENSOR
    return out


def show(path):
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / "events.out.tfevents.0.x"
        copy.write_bytes(path.read_bytes())
        acc = EventAccumulator(folder, size_guidance={"tensors": 0, "scalars": 0})
        acc.Reload()
        out = {}
        for tag in acc.Tags()["scalars"]:
            out[tag] = [(e.wall_time, e.step, e.value) for e in acc.Scalars(tag)]
        for tag in acc.Tags()["tensors"]:
            plugin = acc.SummaryMetadata(tag).plugin_data.plugin_name
            out[tag] = [(e.wall_time, e.step, plugin, list(e.tensor_proto.string_val)) for e in acc.Tensors(tag)]
        return out


if len(sys.argv) > 1:
    for tag, values in show(pathlib.Path(sys.argv[1])).items():
        print(tag, values)
    sys.exit()

path = pathlib.Path(__file__).parent / "reference.tfevents"
start = 1_700_000_000.25
with path.open("wb") as f:
    writer = RecordWriter(f)
    for event in [
        event_pb2.Event(wall_time=start, file_version="brain.Event:2"),
        event_pb2.Event(wall_time=start + 1, summary=text("spec", "# Spec\n\n| a | b |\n|---|---|\n| ä | 1 |", True)),
        event_pb2.Event(wall_time=start + 2, step=1, summary=scalars(train__loss=0.5, train__accuracy=0.75)),
        event_pb2.Event(wall_time=start + 3, step=300, summary=scalars(train__loss=float("inf"), joules=1e6)),
        event_pb2.Event(wall_time=start + 4, step=2**40, summary=text("spec", "long " * 100, False)),
        event_pb2.Event(wall_time=start + 5, step=2**40, summary=scalars(train__loss=-0.0)),
    ]:
        writer.write(event.SerializeToString())
    writer.flush()
found = show(path)
assert [e[1:] for e in found["train/loss"]] == [(1, 0.5), (300, float("inf")), (2**40, 0.0)], found
assert [e[1:] for e in found["joules"]] == [(300, 1e6)], found
assert found["spec"][0][2] == "text" and found["spec"][1][3] == [b"long " * 100], found
