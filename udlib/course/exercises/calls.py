"""A call of the learner's function in words: the arguments that the check passed, and an error that it raised."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from types import SimpleNamespace

import numpy as np
from torch import Tensor

MOST_VALUES = 150  # of a tensor or an array; a larger one is shown by its shape
LONGEST = 1200  # characters of one argument

NO_ARITHMETIC = "Python cannot calculate with a {0}: convert it to an array first, with np.asarray(…)"
# Errors of plausible attempts, by what their message looks like, and what to change.
REMEDIES = {
    r"unsupported operand type\(s\) for .*: '(list|tuple)' and": NO_ARITHMETIC,
    r"unsupported operand type\(s\) for .*: '.*' and '(list|tuple)'": NO_ARITHMETIC,
    r"can't multiply sequence by non-int": NO_ARITHMETIC.format("list"),
    r"unsupported operand type\(s\) for .*NoneType": "one of the values is None: a function that you wrote or called "
    "returned nothing",
    r"'(list|tuple)' object has no attribute '(\w+)'": "a {0} has no .{1}: convert it to an array first, with "
    "np.asarray(…)",
    r"'(float|int)' object has no attribute '(\w+)'": "a Python number has no .{1}: use NumPy's np.{1}(…), or keep a "
    "tensor in place of the number",
    r"'numpy.ndarray' object has no attribute '(\w+)'": "a NumPy array has no .{0}: convert it to a tensor first, with "
    "torch.as_tensor(…), or use NumPy's own function",
    r"'(?:types.SimpleNamespace|Prediction)' object has no attribute '(detach|clone|requires_grad_|sigmoid|softmax)'": (
        "a network's answer holds several tensors and has no .{0}() itself: call it on each tensor, such as "
        "teacher.logits.{0}()"
    ),
    r"'types.SimpleNamespace' object has no attribute '(\w+)'": "a network's answer has no .{0} in this check: it holds "
    "what the exercise names, and no more",
    r"(\w+)\(\): argument '\w+' .*must be Tensor, not numpy.ndarray": "torch.{0} takes a tensor, and this is a NumPy "
    "array: convert it first, with torch.as_tensor(…), or use NumPy's own function",
    r"(\w+)\(\): argument '\w+' .*must be Tensor, not (float|int|list|tuple)": "torch.{0} takes a tensor, not a {1}: "
    "wrap it, torch.tensor(…), or multiply it by a tensor first",
    r"(\w+): found (float|int|list|tuple), expected": "the library takes a tensor for {0}, not a {1}: wrap it, "
    "torch.tensor(…)",
    r"targets hold (\S+) at .*expected only 0 and 1": "this loss takes hard labels, 0 or 1, but it got {0}. For "
    "targets that are probabilities, use a divergence such as losses.bernoulli_kl",
    r"expected one value for each image and class": "the library's loss needs logits and targets of the same shape: {error}",
    r"reduction is (\w+): expected": "the library's losses have no reduction='{0}': 'none' gives one number for each "
    "image, 'mean' the mean over the images",
    r"found shape \(\d+,\), expected \(images, classes\)": "the library's losses take a batch, (images, classes): cut "
    "one image out with [k : k + 1], which keeps both dimensions",
    r"same number of spatial dimensions|bilinear mode needs 4D|non-4D tensors": "F.interpolate resizes (N, C, h, w): add "
    "a channel dimension first, with maps[:, None], and take it away again afterwards, with [:, 0]",
    r"Can't call numpy\(\) on Tensor that requires grad": "no gradient can flow through NumPy: use torch functions "
    "all the way from the arguments to the result",
    r"zero-dimensional tensor .* cannot be concatenated": "torch.cat joins tensors that have a dimension: join single "
    "numbers with torch.stack(…)",
    r"(\w+)\(\) got an unexpected keyword argument '(\w+)'": "{0} has no argument {1}: help(…) lists those it has",
    r"takes \d+ positional arguments? but (\d+) w": "the check calls it with {0} arguments: keep the parameters of the "
    "exercise",
    r"missing \d+ required positional argument": "the check passes fewer arguments than your function expects: keep "
    "the parameters "
    "of the exercise",
    r"size of tensor|could not be broadcast|shapes .* not aligned|size mismatch": "two shapes do not fit: {error}. "
    "Print the .shape of both; where a sum or a mean has dropped a dimension, keepdim=True keeps it",
    r"with a bool tensor is not supported|not implemented for 'Bool'": "you cannot calculate with a "
    "tensor of True and False: convert it with .float(), or invert it with ~",
    r"not implemented for '(Float|Double)'": "&, | and ~ work only on True and False: compare first, for example "
    "targets == 1",
    r"only implemented on integer and Boolean|only supports boolean masks|used as indices must be": "a mask holds True "
    "and False, and this one holds other numbers: compare first, for example targets == 1",
    r"'(\w+)' object is not callable": "something of type {0} was called like a function: the check takes your "
    "function itself, not its result, and an index stands in square brackets",
    r"same dtype|dtype, but found|dtype Bool but expected|could not infer output dtype|desired output type": "the types of the "
    "numbers do not match: give both the same one, with .float() or .double()",
    r"condition to be a boolean tensor": "torch.where chooses by True and False: compare first, for example targets == 1",
    r"leaf Variable that requires grad .*in-place": "an operation in place, such as z /= T, overwrites an argument that "
    "needs a gradient: make a new tensor, z = z / T",
    r"Boolean value of Tensor with more than one": "an if needs one True or False, but it got many: use torch.where, "
    "or a mask",
    r"name '(\w+)' is not defined": "{0} has no value: run the cells above, and check the spelling",
}


def in_words(value) -> str:
    """Return an argument as it would be typed, with four digits; a large one by its kind and shape."""
    if isinstance(value, (Tensor, np.ndarray)):
        if np.prod(value.shape) > MOST_VALUES:
            return f"{type(value).__name__} of shape {tuple(value.shape)}"
        return in_words(value.tolist())
    if isinstance(value, float):
        return f"{value + 0.0:.4g}"  # + 0.0: no sign before a zero
    if isinstance(value, SimpleNamespace):
        text = ", ".join(f".{name} {in_words(part)}" for name, part in vars(value).items())
    elif isinstance(value, Mapping):
        text = "{" + ", ".join(f"{in_words(key)}: {in_words(part)}" for key, part in value.items()) + "}"
    elif type(value) in (list, tuple):
        text = "[" + ", ".join(map(in_words, value)) + "]"
    else:
        text = repr(value)
    if " at 0x" in text or "\n" in text or len(text) > LONGEST:
        return f"a {type(value).__name__}" + (f" of {len(value)}" if hasattr(value, "__len__") else "")
    return text


def call_in_words(function: Callable, arguments: tuple) -> str:
    """Return the call of the learner's function, an argument on each line, under the names that it gives them."""
    try:
        names = list(inspect.signature(function).bind(*arguments).signature.parameters)
    except (TypeError, ValueError):
        names = []
    if len(names) != len(arguments):
        names = [f"argument {k}" for k in range(1, len(arguments) + 1)]
    head = f"    The check called {getattr(function, '__name__', 'your function')} with"
    return "\n".join([head, *(f"      {name} = {in_words(value)}" for name, value in zip(names, arguments))])


def copied(argument):
    """Return a copy of a tensor or an array, so that nothing is lost when it is overwritten; anything else as it is.

    A tensor that requires a gradient is returned as it is too: the check follows the gradient back to it.
    """
    if isinstance(argument, Tensor):
        return argument if argument.requires_grad else argument.clone()
    return argument.copy() if isinstance(argument, np.ndarray) else argument


def remedy(error: Exception) -> str:
    """Return what to change, for an error that a plausible attempt raises; else the error with its kind."""
    message = str(error)
    if isinstance(error, KeyError) and error.args:
        return (
            f"it stopped: there is no key {error.args[0]}: look at the keys that the dictionary has; a position, such "
            "as np.argmax gives, is none of them"
        )
    for pattern, sentence in REMEDIES.items():
        if match := re.search(pattern, message):
            return "it stopped: " + sentence.format(*match.groups(), error=message)
    return f"it stopped with {type(error).__name__}: {message}"
