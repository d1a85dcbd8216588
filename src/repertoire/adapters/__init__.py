"""Adapters: few weights beside the many of a frozen network, which learn in their place.

    adapted = adapters.attach(model, "lora:rank=4")
    # train adapted.parameters(), then
    plain = adapted.merged()

An adapter is attached to layers of any `nn.Module`; it begins as no change at all, and is merged into the layers when
training is over, so that what is left is the network itself.
"""

from repertoire.adapters._adapted import Adapted, attach, is_adapted, merge, merged_state, plain_state
from repertoire.adapters._base import Adapter, Change
from repertoire.adapters._lora import LoRA

__all__ = ["Adapted", "Adapter", "Change", "LoRA", "attach", "is_adapted", "merge", "merged_state", "plain_state"]
