"""make_events.py - a small event file by TensorBoard's own writer, for tests/report/test_events.c.

    build/peer/bin/python tests/golden/make_events.py > tests/golden/events.hex

Bytes as hexadecimal digits, one record a line. What is written is in EVENTS below and in the test.
"""
import io

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


class Kept(io.BytesIO):
    def close(self):
        pass


def summary(**values):
    return Summary(value=[Summary.Value(tag=tag.replace("__", "/"), simple_value=x) for tag, x in values.items()])


EVENTS = [
    Event(wall_time=1700000000.0, file_version="brain.Event:2"),
    Event(wall_time=1700000000.25, step=1, summary=summary(train__loss=0.6931471805599453, train__lr=2e-05)),
    Event(wall_time=1700000001.5, step=300, summary=summary(eval__accuracy=0.875)),
    Event(wall_time=1700000002.0, step=5000000000, summary=summary(x=-1.0)),
]
for event in EVENTS:
    file = Kept()
    RecordWriter(file).write(event.SerializeToString())
    print(file.getvalue().hex())
