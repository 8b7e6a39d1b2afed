"""What an evaluation searches for: classes with their prompts, and each wording of a class alone."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow_blocks.json_file import read_json
from workflow_blocks.prompt_text import name_problem, normalized_prompt, prompt_problem, shortened
from workflow_blocks.running.errors import RunError
from workflow_blocks.running.parameters import BATCH_INPUT, parameter_inputs, values_in_force

# What one step of the detection block takes.
MAX_PROMPTS = 64
# Classes that a message names.
_MAX_LISTED = 10

PromptsOfClasses = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class View:
    """A class, and some of its prompts: all of them, or one that is measured alone."""

    class_name: str
    prompts: tuple[str, ...]


@dataclass(frozen=True)
class PromptFile:
    """Classes with their prompts, and thresholds of classes, as `prompts.json` holds them."""

    prompts: PromptsOfClasses
    thresholds: dict[str, float]


def read_prompts(file: Path) -> PromptFile:
    """Reads `{"prompts": ..., "confidence": ...}`, or the prompts alone: a list or a dictionary.

    Raises:
        RunError: the file cannot be read, or holds something else.
    """
    return parse_prompt_file(read_json(file, RunError), str(file))


def parse_prompt_file(document: object, source: str) -> PromptFile:
    """The same of a value; `source` says in messages where it comes from.

    Raises:
        RunError: it is something else.
    """
    prompts, confidence = prompts_and_confidence(document)
    if isinstance(prompts, str):
        prompts = [prompts]
    if isinstance(prompts, list):
        prompts = {normalized_prompt(prompt): prompt for prompt in prompts} if _are_texts(prompts) else None
    if not isinstance(prompts, dict) or not prompts:
        raise RunError(
            f'{source} holds no prompts; give a JSON object such as {{"helmet": ["hard hat", "helmet"]}}'
        )
    classes: PromptsOfClasses = {}
    for name, own in prompts.items():
        texts = [own] if isinstance(own, str) else own
        is_name = isinstance(name, str) and bool(name.strip())
        if not isinstance(texts, list) or not texts or not _are_texts(texts) or not is_name:
            raise RunError(
                f"{source}: the class {name!r} has the prompts {own!r}; give text, or a list of texts"
            )
        _check_texts(source, name, texts)
        if normalized_prompt(name) in classes:
            raise RunError(f"{source} has two classes {normalized_prompt(name)!r}")
        classes[normalized_prompt(name)] = tuple(dict.fromkeys(map(normalized_prompt, texts)))
    return PromptFile(classes, _thresholds(source, confidence, classes))


def prompts_and_confidence(document: object) -> tuple[Any, Any]:
    """The two values of a prompts file; the second is {} if the file holds the prompts alone."""
    if isinstance(document, dict) and "prompts" in document and document.keys() <= {"prompts", "confidence"}:
        return document["prompts"], document.get("confidence", {})
    return document, {}


def prompts_of_workflow(definition: Mapping[str, Any], parameters: Mapping[str, Any]) -> PromptFile | None:
    """What a workflow searches for, by its parameters `prompts` and `confidence` or their defaults.

    None if it has no parameter `prompts`, or if its value is something else than prompts of this plugin.
    """
    inputs = parameter_inputs(definition)
    if "prompts" not in inputs or inputs["prompts"]["type"] == BATCH_INPUT:
        return None
    values = values_in_force(definition, parameters)
    given = {name: values[name] for name in ("prompts", "confidence") if values.get(name) is not None}
    try:
        return parse_prompt_file(given, "")
    except RunError:
        return None


def views_of(classes: Mapping[str, tuple[str, ...]]) -> list[View]:
    """Each class with all its prompts; then, of classes with several, each prompt alone."""
    views = [View(name, prompts) for name, prompts in classes.items()]
    alone = [
        View(name, (prompt,)) for name, prompts in classes.items() if len(prompts) > 1 for prompt in prompts
    ]
    return views + alone


def steps_of(views: list[View]) -> Iterator[list[int]]:
    """Indices of views that one step can search for together, by its limit of different prompts."""
    group: list[int] = []
    prompts: set[str] = set()
    for index, view in enumerate(views):
        if group and (len(prompts | set(view.prompts)) > MAX_PROMPTS or len(group) == MAX_PROMPTS):
            yield group
            group, prompts = [], set()
        group.append(index)
        prompts |= set(view.prompts)
    if group:
        yield group


def _are_texts(values: list[Any]) -> bool:
    return all(isinstance(value, str) and value.strip() for value in values)


def _check_texts(source: str, name: str, prompts: list[str]) -> None:
    """Refuses what the detection block refuses, where the file and the class are known."""
    if problem := name_problem(name):
        raise RunError(f"{source}: the name of the class {shortened(name)} {problem}")
    for prompt in prompts:
        if problem := prompt_problem(prompt):
            raise RunError(f"{source}: the prompt {shortened(prompt)} of the class {name!r} {problem}")
    n_prompts = len(set(map(normalized_prompt, prompts)))
    if n_prompts > MAX_PROMPTS:
        raise RunError(
            f"{source}: the class {name!r} has {n_prompts} prompts; at most {MAX_PROMPTS} are possible"
        )


def _thresholds(source: str, confidence: object, classes: PromptsOfClasses) -> dict[str, float]:
    if isinstance(confidence, (int, float)) and not isinstance(confidence, bool):
        confidence = {"*": confidence}
    if not isinstance(confidence, dict):
        raise RunError(
            f"{source}: `confidence` is {confidence!r}; give an object of classes and numbers from 0 to 1"
        )
    for name, value in confidence.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= 1:
            raise RunError(f"{source}: `confidence` of {name!r} is {value!r}; give a number from 0 to 1")
    given = {normalized_prompt(name): float(value) for name, value in confidence.items()}
    for name in given:
        if name not in classes and name != "*":
            known = ", ".join(map(shortened, list(classes)[:_MAX_LISTED]))
            more = ", ..." if len(classes) > _MAX_LISTED else ""
            raise RunError(
                f"{source}: `confidence` has a threshold for {shortened(name)}, which is no class; "
                f"the classes are {known}{more}"
            )
    named = {name: given[name] for name in classes if name in given}
    return named | ({name: given["*"] for name in classes if name not in given} if "*" in given else {})
