"""Options are described once, in their class: from there the words reach signatures, and the arguments the options."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import docstring_parser
from pydantic import BaseModel

from kfp_image_classification.components.step.errors import Options, checked

Function = TypeVar("Function", bound=Callable[..., Any])


def options_from(options: type[Options], arguments: Mapping[str, Any], **own: Any) -> Options:
    """Builds a stage's options from those arguments that are fields of it; the others are somebody else's.

    Args:
        options: The class.
        arguments: Such as the `locals()` of a step.
        **own: What the arguments lack, or have under another name.

    Raises:
        InvalidInput: With all the problems that the options' own validation found.
    """
    known = {name: arguments[name] for name in options.model_fields if name in arguments}
    return checked(options, **{**known, **own})


def described_by(*sources: Any) -> Callable[[Function], Function]:
    """Completes a docstring: parameters that it leaves out are told in the words of the first source that knows them.

    KFP shows the words in its UI, and the command line in its help; both read a function's docstring when it is
    decorated, so this goes below their decorators.

    Args:
        *sources: Classes of options with an Attributes section, or KFP components with described inputs.

    Returns:
        A decorator, which raises LookupError for a parameter that nobody describes.
    """
    words: dict[str, str] = {}
    for source in reversed(sources):
        words.update(_words(source))

    def decorate(function: Function) -> Function:
        docstring = inspect.getdoc(function) or ""
        described = {parameter.arg_name for parameter in docstring_parser.parse(docstring).params}
        missing = [name for name in inspect.signature(function).parameters if name not in described]
        if nowhere := [name for name in missing if name not in words]:
            raise LookupError(f"{function.__name__}: nobody describes {', '.join(nowhere)}")
        before, returns, after = docstring.partition("\n\nReturns:")
        heading = "" if described else "\n\nArgs:"
        entries = "".join(f"\n    {name}: {words[name]}" for name in missing)
        function.__doc__ = f"{before.rstrip()}{heading}{entries}{returns}{after}"
        return function

    return decorate


def _words(source: Any) -> dict[str, str]:
    if isinstance(source, type) and issubclass(source, BaseModel):
        described = docstring_parser.parse(inspect.getdoc(source) or "").params
        found = {attribute.arg_name: attribute.description for attribute in described}
    else:
        found = {name: spec.description for name, spec in source.component_spec.inputs.items()}
    return {name: " ".join(text.split()) for name, text in found.items() if text}
