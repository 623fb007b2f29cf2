"""Maps of classes and of uncertainty where autograd is switched off, and classes that do not fit the images."""

import numpy as np
import pytest
import torch
from test_attention import make

from udlib.attention import class_attention, uncertainty_attention
from udlib.heads import DualBranchHead

MODES = pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
HERE = pytest.mark.parametrize("where", ["inside", "outside"])


def maps_of(head, features, classes, **options):
    return class_attention(head, features, classes, relu=False, **options)


@MODES
@HERE
@pytest.mark.parametrize("branch", ["classification", "calibration"])
def test_a_class_map_is_the_same_where_all_that_it_gets_was_made_without_gradients(mode, where, branch):
    head, features = make()
    best = head.eval()(features.flatten(2).mean(2))[branch == "calibration"].argmax(1)
    expected = maps_of(head, features.detach(), best, branch=branch)
    with mode():
        z = features.detach().clone()
        classes = head(z.flatten(2).mean(2))[branch == "calibration"].argmax(1)
        found = maps_of(head, z, classes, branch=branch) if where == "inside" else None
    found = maps_of(head, z, classes, branch=branch) if found is None else found
    torch.testing.assert_close(found, expected)


@MODES
def test_one_class_for_all_images_may_be_chosen_there_too(mode):
    head, features = make()
    with mode():
        one = torch.arange(3)[2] - 1
    torch.testing.assert_close(maps_of(head, features, one), maps_of(head, features, 1))
    with mode():
        torch.testing.assert_close(maps_of(head, features, 1), maps_of(head, features, torch.tensor([1, 1, 1])))


@HERE
def test_a_head_that_was_made_in_inference_mode_has_the_same_maps(where):
    usual, features = make(dtype=torch.float32)
    with torch.inference_mode():
        head = DualBranchHead(6, 4, embedding=5)
    usual.eval()
    twin = DualBranchHead(6, 4, embedding=5)
    twin.load_state_dict(head.state_dict())
    expected = uncertainty_attention(twin, features), maps_of(twin, features, 2)

    def maps():
        return uncertainty_attention(head, features), maps_of(head, features, 2)

    with torch.inference_mode(where == "inside"):
        found = maps()
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other.detach())


@pytest.mark.parametrize(
    ("classes", "complaint"),
    [
        (
            torch.tensor([0, 1]),
            r"classes have shape \(2,\): expected one class, or one for each of the 3 images, \(3,\)",
        ),
        (torch.tensor([0, 1, 2, 3]), r"classes have shape \(4,\)"),
        (torch.tensor([1]), r"classes have shape \(1,\)"),
        (torch.tensor([], dtype=torch.long), r"classes have shape \(0,\)"),
        (torch.tensor([[0], [1], [2]]), r"classes have shape \(3, 1\)"),
        ([0, 1], r"classes have shape \(2,\)"),
        (torch.tensor([0.0, 1.0, 2.0]), r"classes are torch.float32: expected whole numbers from 0 to 3"),
        (1.5, "classes are torch.float32"),
        (torch.tensor([True, False, True]), "classes are torch.bool"),
        (torch.tensor([0, 1, 4]), "classes run from 0 to 4: expected 0 to 3"),
    ],
)
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
def test_classes_that_do_not_fit_are_refused_with_what_was_expected(classes, complaint, mode):
    head, features = make()
    with mode(), pytest.raises(ValueError, match=complaint):
        class_attention(head, features, classes)


@pytest.mark.parametrize(
    "kind", [list, np.array, lambda c: torch.tensor(c, dtype=torch.int32), lambda c: torch.tensor(c).byte()]
)
def test_classes_come_as_a_list_an_array_or_a_tensor_of_any_whole_numbers(kind):
    head, features = make()
    expected = maps_of(head, features, torch.tensor([3, 0, 1]))
    torch.testing.assert_close(maps_of(head, features, kind([3, 0, 1])), expected)
