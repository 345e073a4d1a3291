"""What a config chooses for its student, made and checked before anything is trained.

A teacher may take hours. A recipe that does not exist, terms that cannot be, a student that cannot be trained so: all of that is
known from the config and the shape of the data, and is told first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from snn_export.config_schema import Config
from snn_export.data.dataset import Dataset
from snn_export.export.snntorch_neurons import begins_charged
from snn_export.models.building import outlined
from snn_export.models.diagnostics import UserError
from snn_export.models.naming import suggestion
from snn_export.models.rate_based.admissible import check_rate_based
from snn_export.models.students.registry import STUDENTS, build_student
from snn_export.models.students.student import SpikingStudent, StudentConfig
from snn_export.models.teachers.registry import TEACHERS, build_teacher
from snn_export.models.teachers.teacher import TeacherConfig
from snn_export.pipeline.teacher_source import is_file
from snn_export.training.composing import compose, parse_terms
from snn_export.training.conversion.registry import CONVERSIONS, load_conversion
from snn_export.training.recipe import ForwardMode, Recipe
from snn_export.training.recipes.registry import load_recipe, recipe_names

COMPOSED = "composed"
"""The recipe that a config writes down itself, term by term."""
FOR_TEACHERS = "teacher"
"""The recipe of the first step; no way for a student to learn from one."""
WITH_SHORTCUTS = ("resnet18", "resnet19")
"""Students that ``model.residual`` says something to."""
FOR_SEQUENCES = ("gru", "conv1d")
"""Teachers by name that take samples with a time axis."""
NEURON = ("dv", "reset", "detach_reset", "threshold", "steps")
"""Fields of a student that a config always states, so that those of the recipe's publication have no say."""


def check_recipe(config: Config) -> None:
    """What can be told from the config alone.

    Raises:
        UserError: SNX013 an unknown recipe, SNX018 terms beside a ready-made one, SNX019 settings that the choice has no use for,
            SNX340 single steps compared on rates, SNX344 and SNX345 terms that cannot be, SNX346 a recipe that cannot be loaded.
    """
    model = config.model
    if model.student not in STUDENTS:
        build_student(model.student)  # SNX010, with a suggestion
    if model.residual == "spikes" and model.student not in WITH_SHORTCUTS:
        raise UserError(
            "SNX019", f"model.residual = 'spikes' says nothing to the student '{model.student}'", where="model.residual",
            why="it decides what shortcuts add, and this student has none",
            fix=f"choose a student with shortcuts ({', '.join(WITH_SHORTCUTS)}), or leave model.residual out",
        )  # fmt: skip
    if config.training.recipe in CONVERSIONS:
        _check_conversion(config)
    else:
        chosen_recipe(config)


def check_deployable(config: Config) -> None:
    """SNX350, before anything is trained, where the student will begin with a membrane that no file and no chip has."""
    if config.training.recipe not in CONVERSIONS:
        return
    initial = load_conversion(config.training.recipe).method.initial
    if initial:
        raise begins_charged(f"every layer that '{config.training.recipe}' converts", initial, "training.recipe")


def check_networks(config: Config, data: Dataset) -> None:
    """Whether the student can be built for the data and trained as it is asked for, and the teacher can read them.

    Raises:
        UserError: SNX010 an unknown teacher, SNX012 a network that cannot be built, SNX280 to SNX282 a student that rates cannot
            carry, SNX349 samples with a time axis for a network without one, SNX351 and SNX352 what cannot be converted.
    """
    _check_time(config, data)
    if config.training.recipe in CONVERSIONS:
        source = conversion_source(config, data)
        network = build_teacher(source.name, input_shape=source.input_shape, classes=source.classes, width=source.width)
        load_conversion(config.training.recipe).prepare_source(network)
        return
    recipe = chosen_recipe(config)
    student = outlined(lambda: student_of(config, data, recipe))
    if recipe.forward_mode is ForwardMode.RATE:
        check_rate_based(student.layers)


def chosen_recipe(config: Config) -> Recipe:
    """The recipe that a config names or composes, in the forward mode it asks for; errors as :func:`check_recipe`."""
    training = config.training
    if training.recipe == COMPOSED:
        return compose(COMPOSED, training.forward_mode or ForwardMode.BPTT, parse_terms(training.terms))
    known = [name for name in recipe_names() if name != FOR_TEACHERS]
    if training.recipe not in (*known, FOR_TEACHERS):
        raise UserError(
            "SNX013", f"there is no recipe called '{training.recipe}'", where="training.recipe",
            why="a recipe says how the student learns: by a published loss, by a composed one, or as a converted network",
            fix=suggestion(training.recipe, (*known, COMPOSED, *CONVERSIONS)),
        )  # fmt: skip
    if training.terms:
        raise _terms(f"recipe '{training.recipe}' has terms of its own", "this one is ready made")
    recipe = load_recipe(training.recipe)
    return recipe if training.forward_mode is None else recipe.in_mode(ForwardMode(training.forward_mode))


def student_of(config: Config, data: Dataset, recipe: Recipe) -> SpikingStudent:
    """The student of a config, its surrogate the recipe's own where nothing is said."""
    model = config.model
    return build_student(
        model.student,
        seed=config.project.seed,
        input_shape=data.input_shape,
        classes=data.classes,
        steps=data.steps or model.steps,
        encoder="direct" if data.steps is None else "events",
        dv=model.dv,
        width=model.student_width,
        threshold=model.threshold,
        reset=model.reset,
        detach_reset=model.detach_reset,
        residual=model.residual,
        **_surrogate(config, recipe.student),
    )


def conversion_source(config: Config, data: Dataset) -> TeacherConfig:
    """The network that a conversion trains: the ReLU network of the student's name and width."""
    return TeacherConfig(config.model.student, data.input_shape, data.classes, config.model.student_width)


def departures(recipe: Recipe, student: StudentConfig) -> str:
    """In which neurons and steps a run differs from the recipe's publication, in one line; empty where it does not."""
    differing = [name for name in NEURON if name in recipe.student and recipe.student[name] != getattr(student, name)]
    if not differing:
        return ""
    own = {name: getattr(student, name) for name in differing}
    return f"published with {_listed(differing, recipe.student)}; this run: {_listed(differing, own)}"


def replaced_by_conversion(config: Config, student: StudentConfig) -> str:
    """Which of the config's neuron settings a conversion sets itself, in one line; empty where they agree."""
    model, fields = config.model, ("dv", "reset", "threshold")
    differing = [name for name in fields if getattr(model, name) != getattr(student, name)]
    if not differing:
        return ""
    own = {name: getattr(student, name) for name in differing}
    asked = {name: getattr(model, name) for name in differing}
    return f"a converted network has {_listed(differing, own)}, in place of {_listed(differing, asked)} of the settings"


def _listed(names: list[str], values: Mapping[str, object]) -> str:
    """``dv 2048, steps 4``; numbers that are whole without a point."""
    return ", ".join(f"{name} {value:g}" if type(value := values[name]) is float else f"{name} {value}" for name in names)


def _surrogate(config: Config, published: Mapping[str, object]) -> dict[str, Any]:
    """Surrogate and slope: a published slope belongs to the published surrogate and goes with no other."""
    model = config.model
    found = {name: published[name] for name in ("surrogate", "slope") if name in published}
    if model.surrogate is not None and model.surrogate != found.get("surrogate"):
        found = {"surrogate": model.surrogate}
    return found if model.slope is None else {**found, "slope": model.slope}


def _check_conversion(config: Config) -> None:
    """SNX018 or SNX019 for settings that a conversion would pass over in silence."""
    training, model = config.training, config.model
    if training.terms:
        raise _terms(f"the conversion '{training.recipe}' has no loss terms to choose", "a conversion trains no spiking network")
    unused = {
        "training.forward_mode": training.forward_mode is not None,
        "training.student_taps": bool(training.student_taps),
        "training.teacher_taps": bool(training.teacher_taps),
        "model.residual": model.residual == "spikes",
        "model.surrogate": model.surrogate is not None,
        "model.slope": model.slope is not None,
    }
    said = [name for name, stated in unused.items() if stated]
    if said:
        raise UserError(
            "SNX019", f"the conversion '{training.recipe}' has no use for {', '.join(said)}", where=said[0],
            why="it trains the ReLU network of the student's name on labels and turns it into the student, currents added at "
            "shortcuts: no gradient runs through spikes and no layers are compared",
            fix=f"leave {', '.join(said)} out, or choose a recipe that trains the student, such as plain_kd",
        )  # fmt: skip
    convertible = [name for name in STUDENTS if name in TEACHERS]
    if model.student not in convertible:
        raise UserError(
            "SNX019", f"the conversion '{training.recipe}' cannot make the student '{model.student}'", where="model.student",
            why="there is no ReLU network of this name to be converted", fix=suggestion(model.student, convertible),
        )  # fmt: skip


def _check_time(config: Config, data: Dataset) -> None:
    """SNX349 where samples have a time axis and a network that shall read them has none; SNX010 for an unknown teacher."""
    teacher = config.model.teacher
    if not is_file(teacher) and teacher not in TEACHERS:
        build_teacher(teacher)  # SNX010, with a suggestion
    if data.steps is None:
        return
    if config.training.recipe in CONVERSIONS:
        raise UserError(
            "SNX349", f"the conversion '{config.training.recipe}' cannot learn from samples with a time axis",
            where="training.recipe",
            why=f"the network it converts reads one input of shape {data.input_shape}, not {data.steps} of them in a row",
            fix="choose a recipe that trains the student on events, such as no_teacher or plain_kd",
        )  # fmt: skip
    if not is_file(teacher) and teacher not in FOR_SEQUENCES:
        raise no_time_axis(teacher, data, f"it reads one input of shape {data.input_shape}, not a sequence of them")


def no_time_axis(teacher: str, data: Dataset, why: str) -> UserError:
    """SNX349 for a teacher that cannot read samples (T, *shape)."""
    return UserError(
        "SNX349", f"the teacher '{teacher}' cannot read samples of {data.steps} time steps", where="model.teacher", why=why,
        fix=f"for feature vectors choose {' or '.join(FOR_SEQUENCES)}; for other events give a teacher from a file that takes "
        f"(B, {', '.join(map(str, (data.steps, *data.input_shape)))})",
    )  # fmt: skip


def _terms(what: str, why: str) -> UserError:
    return UserError(
        "SNX018", what, where="training.terms", why=f"terms are those of a composed recipe, and {why}",
        fix=f'set training.recipe = "{COMPOSED}", or leave training.terms out',
    )  # fmt: skip
