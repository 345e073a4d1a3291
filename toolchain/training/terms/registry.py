"""Loss terms by name: each is a frozen dataclass in a file of this folder and one line in the table. Reading this imports none.

Third parties add theirs through the entry point group ``snn_export.loss_terms``, as ``module:Class``. One that cannot be loaded
is not skipped: it is listed as broken with its error, and a recipe that names it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from snn_export.models.diagnostics import UserError
from snn_export.models.naming import suggestion
from snn_export.training.plug_ins import Registry

if TYPE_CHECKING:
    from snn_export.training.term import LossTerm

GROUP = "snn_export.loss_terms"

_HERE = "snn_export.training.terms"

TERMS: Mapping[str, str] = {
    name: f"{_HERE}.{place}"
    for name, place in {
        "cross_entropy": "logits:CrossEntropy",
        "knowledge_distillation": "logits:KnowledgeDistillation",
        "block_wise": "block_wise:BlockWise",
        "activation_map": "activation_map:ActivationMap",
        "noise_smoothed_logits": "noise_smoothed_logits:NoiseSmoothedLogits",
        "attention_transfer": "attention_transfer:AttentionTransfer",
        "reliable_teacher": "reliable_teacher:ReliableTeacher",
        "masked_features": "masked_features:MaskedFeatures",
        "weighted_logits": "weighted_logits:WeightedLogits",
        "head_tail_kl": "head_tail_kl:HeadTailKl",
        "entropy_regularised_steps": "per_step:EntropyRegularisedSteps",
        "decoupled_steps": "per_step:DecoupledSteps",
    }.items()
}
"""The loss terms of this program, as ``module:Class``."""


REGISTRY = Registry("loss term", GROUP, TERMS)


def term_names() -> tuple[str, ...]:
    """Names of all loss terms, broken ones too: those of this program in their order, then those of third parties sorted."""
    return REGISTRY.names()


def load_term(name: str) -> type[LossTerm]:
    """The class of the loss term called ``name``.

    Raises:
        UserError: SNX344 with a suggestion for an unknown name, SNX346 for one of a third party that cannot be loaded.
    """
    if name not in (known := term_names()):
        raise UserError(
            "SNX344", f"there is no loss term called '{name}'", where=f"terms.{name}",
            why="a recipe is composed of the terms that `snn-export recipes composed` lists", fix=suggestion(name, known),
        )  # fmt: skip
    term: type[LossTerm] = REGISTRY.load(name, _misfit)
    return term


def _misfit(name: str, found: Any) -> str:
    """What keeps a third party's object from being the loss term ``name``; empty where nothing does. It may raise anything."""
    from dataclasses import InitVar
    from typing import get_type_hints

    from snn_export.training.composing import WEIGHT, published_parameters
    from snn_export.training.term import LossTerm, Needs

    derived = isinstance(found, type) and issubclass(found, LossTerm)
    if not derived:
        return f"it is {found!r}, not a class derived from LossTerm"
    # Its own, not inherited: a derived class that is no dataclass itself has its base's fields alone.
    if "__dataclass_params__" not in vars(found):
        return "it is no dataclass: its parameters could not be told"
    if not found.__dataclass_params__.frozen:
        return "it is no frozen dataclass: a parameter could change while a network is trained"
    if getattr(found, "name", None) != name:
        return f"the term there calls itself {getattr(found, 'name', None)!r}"
    if found.__abstractmethods__:
        return f"it does not define {', '.join(sorted(found.__abstractmethods__))}"
    if not isinstance(found.needs, Needs):
        return f"its needs are {found.needs!r}, not Needs(...) of snn_export.training.term"
    hints = get_type_hints(found)  # a name that cannot be resolved raises
    if WEIGHT in hints:
        return f"its parameter '{WEIGHT}' would be taken for the weight that every term has"
    if hidden := [key for key, kind in hints.items() if isinstance(kind, InitVar) or kind is InitVar]:
        return f"'{hidden[0]}' is an InitVar: what is no field cannot be told from a run"
    published_parameters(found)
    return ""
