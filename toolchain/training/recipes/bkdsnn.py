"""BKDSNN: the teacher's last features from a masked copy of the student's, and weighted distillation of logits.

Terms and their sources: :mod:`snn_export.training.terms.masked_features`, :mod:`snn_export.training.terms.weighted_logits`. The
weight of the first is the published one for convolutional networks; transformers take 2e-3.
"""

from __future__ import annotations

from snn_export.training.recipe import ForwardMode, Recipe, WeightedTerm
from snn_export.training.settings import TrainingSettings
from snn_export.training.terms.logits import CrossEntropy
from snn_export.training.terms.masked_features import MaskedFeatures
from snn_export.training.terms.weighted_logits import WeightedLogits

RECIPE = Recipe(
    name="bkdsnn",
    forward_mode=ForwardMode.BPTT,
    terms=(
        WeightedTerm(CrossEntropy()),
        WeightedTerm(MaskedFeatures(keep=0.85), 7e-5),
        WeightedTerm(WeightedLogits(tau=2.0)),
    ),
    citation=(
        "Xu et al., BKDSNN: enhancing the performance of learning-based spiking neural networks training with blurred knowledge "
        "distillation, ECCV 2024"
    ),
    settings=TrainingSettings(
        optimizer="sgd",
        momentum=0.9,
        learning_rate=0.1,
        weight_decay=0.0,
        schedule="cosine",
        epochs=320,
        batch_size=256,
        augmentation=("crop", "flip"),
        max_shift=0,
    ),
    summary="teacher features from masked ones, weighted logits",
    published="SEW-ResNets on ImageNet, T = 4; results not found",
    student={"steps": 4, "dv": 0, "threshold": 1.0, "surrogate": "atan", "slope": 2.0, "detach_reset": True},
    inferred=(
        "learning rate 0.1 and a batch of 8 x 32: those of the spiking ResNet code it builds on",
        "augmentation: the random resized crop of ImageNet is not among the steps here; crop and flip in its place",
        "neuron: integrate-and-fire with the arctangent surrogate, of the code it builds on",
        "the gradient does not run through the scaling of the teacher's features",
        "dense features: linear layers in place of convolutions",
    ),
)
