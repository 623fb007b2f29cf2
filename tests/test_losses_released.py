"""The whole loss of uncertainty distillation as its authors ran it, written again in plain loops from its equations."""

import copy
import math

import pytest
import torch

from udlib.attention import uncertainty_attention
from udlib.heads import DualBranchHead, Prediction
from udlib.losses import uncertainty_distillation_loss

IMAGES, CLASSES, T = 3, 4, 3.0
STUDENT_SHAPE, TEACHER_SHAPE = (5, 2, 3), (7, 4, 5)  # channels, height, width


def a_head(seed, channels):
    """A classifier without bias and a calibration branch whose running statistics are not those of any batch here."""
    torch.manual_seed(seed)
    head = DualBranchHead(channels, CLASSES, embedding=6, bias=False).double()
    head.calibration[1].running_mean.normal_()
    head.calibration[1].running_var.uniform_(0.5, 2)
    for weights in head.parameters():
        weights.data = torch.randn_like(weights)
    return head


def a_map(seed, shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(IMAGES, *shape, generator=generator, dtype=torch.float64).requires_grad_()


def literal_pooled(features):
    """Maximum over the cells, for each image and channel."""
    return [[max(cell for row in channel for cell in row) for channel in image] for image in features]


def literal_linear(weight, bias, x):
    return [sum(w * v for w, v in zip(weight[k], x)) + (0 if bias is None else bias[k]) for k in range(weight.shape[0])]


def literal_heads(head, pooled, training):
    """Logits of both branches; `training` normalises the hidden layer by the batch, else by running statistics."""
    first, norm, _, last = head.calibration
    hidden = [literal_linear(first.weight, first.bias, p) for p in pooled]
    calibration = []
    for image in hidden:
        normalised = []
        for k, value in enumerate(image):
            mean, variance = norm.running_mean[k], norm.running_var[k]
            if training:
                mean = sum(other[k] for other in hidden) / len(hidden)
                variance = sum((other[k] - mean) ** 2 for other in hidden) / len(hidden)
            value = (value - mean) / torch.sqrt(variance + norm.eps) * norm.weight[k] + norm.bias[k]
            normalised.append(value.clamp(min=0))
        calibration.append(literal_linear(last.weight, last.bias, normalised))
    if training:  # as batch normalisation does, one step of 0.1 towards the batch
        move_running_statistics(norm, torch.stack([torch.stack(image) for image in hidden]))
    return [literal_linear(head.classification.weight, None, p) for p in pooled], calibration


def move_running_statistics(norm, hidden):
    with torch.no_grad():
        norm.running_mean += 0.1 * (hidden.mean(0) - norm.running_mean)
        norm.running_var += 0.1 * (hidden.var(0) - norm.running_var)


def literal_softmax(z):
    everything = sum(torch.exp(v) for v in z)
    return [torch.exp(v) / everything for v in z]


def literal_kl(p, q):
    return sum(p_i * torch.log(p_i / q_i) for p_i, q_i in zip(p, q))


def literal_map(head, features):
    """A = Σ_c w_c Z_c of each image, w = softmax of g held constant, g_c = Σ_hw ∂KL/∂Z_chw."""
    maps = []
    for image in features:
        at_cells = image.detach().clone().requires_grad_()
        logits, calibration_logits = literal_heads(head, literal_pooled(at_cells[None]), training=False)
        divergence = literal_kl(literal_softmax(calibration_logits[0]), literal_softmax(logits[0]))
        (slope,) = torch.autograd.grad(divergence, at_cells)
        g = [sum(cell for row in channel for cell in row) for channel in slope.tolist()]
        w = [math.exp(g_c) / sum(map(math.exp, g)) for g_c in g]
        height, width = image.shape[1:]
        maps.append([[sum(w[c] * image[c, i, j] for c in range(len(w))) for j in range(width)] for i in range(height)])
    return maps


def literal_resized(grid, height, width):
    """Bilinear: the centres of the new cells, read between the centres of the old ones."""

    def places(new, old):
        for k in range(new):
            centre = max((k + 0.5) * old / new - 0.5, 0)
            low = int(centre)
            yield low, min(low + 1, old - 1), centre - low

    return [
        [
            (1 - y) * ((1 - x) * grid[top][left] + x * grid[top][right])
            + y * ((1 - x) * grid[bottom][left] + x * grid[bottom][right])
            for left, right, x in places(width, len(grid[0]))
        ]
        for top, bottom, y in places(height, len(grid))
    ]


def literal_loss(teacher, teacher_features, student, student_features):
    """(L'_ps + L'_b) / 2 + 0.1 · L_att; the teacher in evaluation mode, the student's logits in training mode.

    The student's map is read in evaluation mode after that pass, so from running statistics which that pass has moved.
    """
    with torch.no_grad():
        teacher_logits = literal_heads(teacher, literal_pooled(teacher_features), training=False)
    student_logits = literal_heads(student, literal_pooled(student_features), training=True)
    teacher_maps, student_maps = literal_map(teacher, teacher_features), literal_map(student, student_features)
    l_ps = l_b = l_att = 0
    for n in range(IMAGES):
        (t, t_calibration), (s, s_calibration) = (
            [[value / T for value in branch[n]] for branch in both] for both in (teacher_logits, student_logits)
        )
        l_ps += T**2 * literal_kl(literal_softmax(t_calibration), literal_softmax(s_calibration)) / IMAGES
        for t_i, s_i in zip(t, s):
            p, q = 1 / (1 + torch.exp(-t_i)), 1 / (1 + torch.exp(-s_i))
            l_b += T**2 / (2 * CLASSES) * literal_kl([p, 1 - p], [q, 1 - q]) / IMAGES
        height, width = STUDENT_SHAPE[1:]
        resized = literal_resized(teacher_maps[n], height, width)
        for i in range(height):
            for j in range(width):
                difference = student_maps[n][i][j] - resized[i][j].detach()
                l_att += difference**2 / (IMAGES * height * width)
    return {"total": (l_ps + l_b) / 2 + 0.1 * l_att, "classification": l_b, "calibration": l_ps, "attention": l_att}


def a_pass(head, features):
    pooled = features.amax((2, 3))
    return Prediction(*head(pooled), features, pooled)


def loss_of_the_library(teacher, teacher_features, student, student_features):
    teacher_map = uncertainty_attention(teacher, teacher_features, "max", weighting="released")
    prediction = a_pass(student.train(), student_features)
    student_map = uncertainty_attention(student, prediction.features, "max", weighting="released")
    return uncertainty_distillation_loss(
        a_pass(teacher.eval(), teacher_features),
        prediction,
        alpha=1,
        beta=0.1,
        teacher_map=teacher_map,
        student_map=student_map,
        temperature=T,
        scale="released",
    )


@pytest.fixture
def networks():
    teacher, student = a_head(1, TEACHER_SHAPE[0]), a_head(2, STUDENT_SHAPE[0])
    return teacher, a_map(3, TEACHER_SHAPE), student, a_map(4, STUDENT_SHAPE)


def test_the_released_loss_its_terms_and_all_its_gradients_are_those_of_the_loops(networks):
    loops = copy.deepcopy(networks)
    terms, expected = loss_of_the_library(*networks), literal_loss(*loops)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value.item(), rel=1e-9), name
    terms["total"].backward()
    expected["total"].backward()
    torch.testing.assert_close(networks[3].grad, loops[3].grad, rtol=1e-9, atol=1e-12)
    for (name, weights), literal in zip(networks[2].named_parameters(), loops[2].parameters()):
        torch.testing.assert_close(weights.grad, literal.grad, rtol=1e-9, atol=1e-12, msg=name)


def test_each_of_its_terms_counts_and_the_weights_of_the_channels_are_not_alike(networks):
    """Else the test above would not notice a wrong map or a term that is missing."""
    terms = loss_of_the_library(*networks)
    shares = (terms["classification"] / 2, terms["calibration"] / 2, 0.1 * terms["attention"])
    assert min(share / terms["total"] for share in shares) > 0.003
    _, _, student, features = networks
    mean_activation = features.mean(1)
    assert (uncertainty_attention(student, features, "max", weighting="released") - mean_activation).abs().max() > 0.1


def test_the_teacher_gets_no_gradient(networks):
    loss_of_the_library(*networks)["total"].backward()
    assert networks[1].grad is None and all(weights.grad is None for weights in networks[0].parameters())


def test_the_attention_term_reaches_the_students_features_and_not_its_heads(networks):
    _, _, student, features = networks
    uncertainty_attention(student, features, "max", weighting="released").square().sum().backward()
    assert features.grad.all() and all(weights.grad is None for weights in student.parameters())
