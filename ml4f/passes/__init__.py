"""All passes, by name, loaded when first used."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from xdsl.passes import ModulePass

_MODULES = {
    "nn-canonicalize": ("nn_canonicalize", "NnCanonicalizePass"),
    "nn-fold-batch-norm": ("nn_fold_batch_norm", "NnFoldBatchNormPass"),
    "nn-fuse-activation": ("nn_fuse_activation", "NnFuseActivationPass"),
    "nn-recognize-activations": ("nn_recognize_activations", "NnRecognizeActivationsPass"),
    "nn-reduce-strength": ("nn_reduce_strength", "NnReduceStrengthPass"),
    "nn-remove-dead-channels": ("nn_remove_dead_channels", "NnRemoveDeadChannelsPass"),
    "nn-remove-dead-code": ("nn_remove_dead_code", "NnRemoveDeadCodePass"),
    "nn-round-weights": ("nn_round_weights", "NnRoundWeightsPass"),
    "convert-nn-to-loop": ("convert_nn_to_loop", "ConvertNnToLoopPass"),
    "loop-forward-copies": ("loop_forward_copies", "LoopForwardCopiesPass"),
    "loop-fuse-elementwise": ("loop_fuse_elementwise", "LoopFuseElementwisePass"),
    "loop-fuse-dense": ("loop_fuse_dense", "LoopFuseDensePass"),
    "loop-fuse-pool": ("loop_fuse_pool", "LoopFusePoolPass"),
    "loop-choose-schedule": ("loop_choose_schedule", "LoopChooseSchedulePass"),
    "loop-pack-weights": ("loop_pack_weights", "LoopPackWeightsPass"),
    "loop-plan-memory": ("loop_plan_memory", "LoopPlanMemoryPass"),
    "loop-expand": ("loop_expand", "LoopExpandPass"),
    "loop-lower-addresses": ("loop_lower_addresses", "LoopLowerAddressesPass"),
    "loop-share-kernels": ("loop_share_kernels", "LoopShareKernelsPass"),
    "convert-loop-to-thumb": ("convert_loop_to_thumb", "ConvertLoopToThumbPass"),
    "thumb-schedule": ("thumb_schedule", "ThumbSchedulePass"),
    "thumb-legalize-ties": ("thumb_legalize_ties", "ThumbLegalizeTiesPass"),
    "thumb-allocate-registers": ("thumb_allocate_registers", "ThumbAllocateRegistersPass"),
    "thumb-combine-moves": ("thumb_combine_moves", "ThumbCombineMovesPass"),
    "thumb-verify-allocation": ("thumb_verify_allocation", "ThumbVerifyAllocationPass"),
}


def _loader(module: str, name: str) -> Callable[[], type[ModulePass]]:
    return lambda: getattr(import_module(f"ml4f.passes.{module}"), name)


PASSES: dict[str, Callable[[], type[ModulePass]]] = {
    name: _loader(module, class_name) for name, (module, class_name) in _MODULES.items()
}
"""Pass name → function that imports and returns the pass."""
