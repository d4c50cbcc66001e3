"""Prints as JSON what TensorBoard finds in a log directory: {tag: [[step, value], ...]}."""

import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing import tag_types

accumulator = EventAccumulator(sys.argv[1], size_guidance={tag_types.TENSORS: 0, tag_types.SCALARS: 0})
accumulator.Reload()
tags = accumulator.Tags()
assert not tags[tag_types.TENSORS], tags
found = {
    tag: [[event.step, event.value] for event in accumulator.Scalars(tag)]
    for tag in tags[tag_types.SCALARS]
}
print(json.dumps(found))
