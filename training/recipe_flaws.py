"""What is wrong with a recipe, in words for the person who wrote it.

Pydantic names its own tags for variants and types along with the settings, and a single value as the first of a list:
here a setting has the name that it has in the file, and what there is to choose from is said.
"""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

Model = type[BaseModel]


def flaws(error: ValidationError, document: Mapping[str, Any], root: Model) -> list[str]:
    """`setting: reason`, once for each setting of `document` that `root` refuses."""
    reasons: dict[str, list[str]] = {}
    endings: dict[str, str] = {}
    for each in error.errors(include_url=False):
        setting, model = _place(each["loc"], document, root)
        name = ".".join(setting) or "recipe"
        said = reasons.setdefault(name, [])
        said.append(_reason(each, name, model).removeprefix("it must be " if said else ""))
        endings[name] = _ending(each)
    return [f"{name}: {', or '.join(said)}{endings[name]}" for name, said in reasons.items()]


def _place(loc: Sequence[str | int], document: Mapping[str, Any], root: Model) -> tuple[list[str], Sequence[Model]]:
    """The setting's name in the file, and the sections that could be there or, if it is unknown, around it."""
    setting: list[str] = []
    value: Any = document
    models: Sequence[Model] = (root,)
    for part in loc:
        if not isinstance(part, str) or not isinstance(value, Mapping):
            continue  # a place in a list, or the type that a single value was taken for
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        if part not in value and part == value.get("name"):
            models = [model for model in models if model.model_fields["name"].default == part]
            continue
        setting.append(part)
        value = value.get(part)
        inner = [model for field in fields for model in _models(field.annotation)]
        models = inner or models
    return setting, models


def _models(annotation: Any) -> list[Model]:
    parts = get_args(annotation) or (annotation,)
    return [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)]


def _reason(error: ErrorDetails, name: str, models: Sequence[Model]) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            where = f"for this {name.split('.')[0]} there are" if "name" in models[0].model_fields else "there are"
            return f"there is no such setting; {where} {', '.join(models[0].model_fields)}"
        case "union_tag_invalid":
            return f"there is no '{context['tag']}'; name one of {context['expected_tags']}"
        case "union_tag_not_found":
            names = ", ".join(f"'{model.model_fields['name'].default}'" for model in models)
            return f"its name is missing; give one of {names}"
        case "model_type" | "model_attributes_type":
            return f"it is a section: put its settings under [{name}]"
        case "too_short":
            return f"it is too short; at least {context['min_length']} wanted, not {context['actual_length']}"
        case "literal_error":
            return f"it must be {context['expected']}"
    if error["type"].endswith("_parsing"):  # goes on about how the text was read
        return error["msg"].partition(",")[0].replace("Input should be", "it must be")
    return error["msg"].removeprefix("Value error, ").replace("Input should be", "it must be")


def _ending(error: ErrorDetails) -> str:
    """The value that was refused, where the reason speaks of one."""
    told = error["msg"].startswith("Input should be") and isinstance(error["input"], str | int | float)
    return f", not {error['input']!r}" if told and not error["type"].startswith("model_") else ""
