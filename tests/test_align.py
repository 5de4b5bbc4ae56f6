"""Alignment: the fit to the template, the crops, and the helpers that pasting shares."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gfp_core.align import align
from gfp_core.faces import Face, Faces
from gfp_core.geometry import TEMPLATE, fit_similarity, invert, transform

ALIGNMENTS = Path(__file__).parent / "parity" / "align.json"
CORNERS = np.array([[0.0, 0], [511, 0], [0, 511], [511, 511]])


def make_faces(*landmarks: np.ndarray, height: int, width: int) -> Faces:
    faces = tuple(
        Face(0, (*points.min(0), *points.max(0)), 1.0, points.astype(np.float32))
        for points in landmarks
    )
    return Faces(faces, ((height, width),))


def placed(scale: float, angle: float = 0.0, centre: tuple[float, float] = (256, 256)):
    """The template's landmarks in a frame: crop pixels times scale, turned, about a centre."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (TEMPLATE - 256) @ (scale * turn).T + centre


def lmeds(landmarks: np.ndarray) -> np.ndarray:
    return cv2.estimateAffinePartial2D(landmarks, TEMPLATE, method=cv2.LMEDS)[0]


def least_squares(landmarks: np.ndarray) -> np.ndarray:
    # x' = ax - by + c, y' = bx + ay + d
    x, y = landmarks.T
    zero, one = np.zeros(5), np.ones(5)
    left = np.concatenate([np.stack([x, -y, one, zero], 1), np.stack([y, x, zero, one], 1)])
    a, b, c, d = np.linalg.lstsq(left, TEMPLATE.T.ravel(), rcond=None)[0]
    return np.array([[a, -b, c], [b, a, d]])


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a - b) ** 2)))


def test_fit_equals_the_reference() -> None:
    cases = json.loads(ALIGNMENTS.read_text())["cases"]
    for case in cases:
        if case["max_abs_difference_to_least_squares"] < 2e-3:
            fitted = fit_similarity(case["landmarks"])
            np.testing.assert_allclose(fitted, case["forward"], atol=2e-3, err_msg=case["case"])


@pytest.mark.parametrize("name", ["Blake_Lively_outlier", "Blake_Lively_edge"])
def test_fit_with_an_outlier_is_as_good_as_the_reference(name: str) -> None:
    cases = json.loads(ALIGNMENTS.read_text())["cases"]
    case = next(case for case in cases if case["case"] == name)
    error, reference = (
        np.linalg.norm(transform(np.array(matrix), case["landmarks"]) - TEMPLATE, axis=1)
        for matrix in (fit_similarity(case["landmarks"]), case["forward"])
    )
    # One landmark may lie anywhere; the other four must fit as well as the reference's.
    assert np.sort(error)[:4].max() <= np.sort(reference)[:4].max() + 0.01


@pytest.mark.parametrize("wrong", range(5))
@pytest.mark.parametrize("angle", [0.5, 2.5, 4.5])
def test_one_wrong_landmark_does_not_throw_the_crop(wrong: int, angle: float) -> None:
    rng = np.random.default_rng(wrong)
    landmarks = TEMPLATE + rng.normal(0, 3, (5, 2))
    expected = transform(invert(fit_similarity(landmarks)), CORNERS)
    landmarks[wrong] += 100 * np.array([np.cos(angle), np.sin(angle)])
    moved = transform(invert(fit_similarity(landmarks)), CORNERS)
    thrown = transform(invert(least_squares(landmarks)), CORNERS)
    assert np.abs(moved - expected).max() < 25 < np.abs(thrown - expected).max()


def test_fit_is_smooth_where_least_median_of_squares_jumps() -> None:
    rng = np.random.default_rng(0)
    fits = {"ours": fit_similarity, "lmeds": lmeds, "least squares": least_squares}
    moves: dict[str, list[float]] = {name: [] for name in fits}
    for _ in range(20):
        person = TEMPLATE + rng.normal(0, 6, (5, 2))
        for name, fit in fits.items():
            still = transform(invert(fit(person)), CORNERS)
            for seed in range(20):
                noisy = person + np.random.default_rng(seed).normal(0, 2, (5, 2))
                moved = transform(invert(fit(noisy)), CORNERS)
                moves[name].append(np.linalg.norm(moved - still, axis=1).mean())
    ours, theirs, least = (np.percentile(moves[name], 95) for name in fits)
    # Least squares is the least that this noise can move a fit.
    assert ours < 1.05 * least
    assert ours < 0.75 * theirs


@pytest.mark.parametrize("landmark", range(5))
def test_fit_never_jumps_while_a_landmark_wanders_off(landmark: int) -> None:
    corners = []
    for distance in np.arange(0, 200, 0.25):
        landmarks = TEMPLATE.copy()
        landmarks[landmark] += distance * np.array([0.8, 0.6])
        corners.append(transform(invert(fit_similarity(landmarks)), CORNERS))
    assert np.abs(np.diff(corners, axis=0)).max() < 1.5


@settings(deadline=None)
@given(
    st.floats(0.02, 50),
    st.floats(-np.pi, np.pi),
    st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)),
    st.sampled_from([64, 256, 512, 1024]),
)
def test_fit_finds_any_similarity(
    scale: float, angle: float, centre: tuple[float, float], size: int
) -> None:
    landmarks = placed(scale, angle, centre)
    matrix = fit_similarity(landmarks, size)
    np.testing.assert_allclose(transform(matrix, landmarks), TEMPLATE * size / 512, atol=1e-6)
    there_and_back = transform(invert(matrix), transform(matrix, landmarks))
    np.testing.assert_allclose(there_and_back, landmarks, atol=1e-6)


@pytest.mark.parametrize(
    ("landmarks", "message"),
    [
        (np.zeros((5, 2)), "point or line"),
        (np.full((5, 2), 1e6), "point or line"),
        (np.outer(np.arange(5), [1, 2]) + 7, "point or line"),
        (np.full((5, 2), np.nan), "finite"),
        (np.where(np.eye(5, 2) > 0, np.inf, TEMPLATE), "finite"),
        (TEMPLATE * [-1, 1], "mirrored"),
        (TEMPLATE[:4], "shape"),
    ],
)
def test_landmarks_that_are_no_face_are_refused(landmarks: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_similarity(landmarks)


def test_a_face_that_is_no_face_is_named() -> None:
    faces = make_faces(TEMPLATE, np.zeros((5, 2)), height=512, width=512)
    with pytest.raises(ValueError, match="face 1 of frame 0"):
        align(torch.zeros(1, 3, 512, 512), faces)


def test_aligned_face_is_cut_out_as_it_is() -> None:
    frame = torch.rand(1, 3, 600, 700, generator=torch.Generator().manual_seed(0))
    before = frame.clone()
    shifted = make_faces(TEMPLATE + np.array([50, 20]), height=600, width=700)
    aligned = align(frame, shifted)
    assert aligned.crops is not None
    torch.testing.assert_close(aligned.crops[0], frame[0, :, 20:532, 50:562], atol=1e-3, rtol=0)
    np.testing.assert_allclose(aligned.faces[0].matrix, [[1, 0, -50], [0, 1, -20]], atol=1e-4)
    assert torch.equal(frame, before)
    assert aligned.restored is None


def rings(x: np.ndarray, y: np.ndarray, length: int) -> np.ndarray:
    """Rings from slow to nearly as fine as a pixel, in another phase for each channel."""
    phase = (x**2 + y**2) * (2.2 / length)
    return np.stack([0.5 + 0.5 * np.cos(phase + c) for c in range(3)], axis=-1).astype(np.float32)


@pytest.mark.parametrize("ratio", [1.25, 1.5, 2.0, 5.1])
def test_large_faces_do_not_alias(ratio: float) -> None:
    size = 256
    length = int(size * ratio * 1.25)
    y, x = np.mgrid[:length, :length].astype(np.float32) - length / 2
    pixels = rings(x, y, length)
    landmarks = placed(ratio * size / 512, 0.2, (length / 2, length / 2))
    aligned = align(
        torch.from_numpy(pixels).permute(2, 0, 1)[None],
        make_faces(landmarks, height=length, width=length),
        size,
    )
    assert aligned.crops is not None
    crop = aligned.crops[0].permute(1, 2, 0).numpy()

    # The scene itself, 8 x 8 samples a pixel of the crop.
    v, u = np.mgrid[: 8 * size, : 8 * size].astype(np.float32)
    back = invert(aligned.faces[0].matrix)
    x, y = (
        np.float32(row[0] / 8) * u + np.float32(row[1] / 8) * v + np.float32(offset)
        for row, offset in zip(back, back @ (-7 / 16, -7 / 16, 1) - length / 2, strict=True)
    )
    truth = cv2.resize(rings(x, y, length), (size, size), interpolation=cv2.INTER_AREA)
    plain = cv2.warpAffine(pixels, aligned.faces[0].matrix, (size, size))
    assert psnr(crop, truth) > 30
    assert psnr(crop, truth) > psnr(plain, truth) + 4


def test_the_border_is_the_edge_of_the_frame() -> None:
    frame = torch.full((1, 3, 300, 300), 0.25)
    frame[..., 0] = 0.75
    faces = make_faces(placed(0.5, centre=(0, 150)), height=300, width=300)
    replicated, black = (
        align(frame, faces, padding=border).crops for border in ("replicate", "constant")
    )
    assert replicated is not None
    assert black is not None
    torch.testing.assert_close(replicated[..., :240], torch.full((1, 3, 512, 240), 0.75))
    assert black[..., :240].max() == 0
    torch.testing.assert_close(replicated[..., 270:], black[..., 270:])


@pytest.mark.parametrize("centre", [(-40, 60), (40, 260), (330, 150)])
def test_reflected_border_is_that_of_the_whole_frame(centre: tuple[float, float]) -> None:
    generator = torch.Generator().manual_seed(1)
    frame = torch.rand(1, 3, 300, 320, generator=generator)
    landmarks = placed(0.5, 0.4, centre)
    near = align(frame, make_faces(landmarks, height=300, width=320), padding="reflect").crops
    padded = np.pad(frame[0].numpy(), ((0, 0), (290, 290), (290, 290)), mode="reflect")
    around = make_faces(landmarks + 290, height=880, width=900)
    far = align(torch.from_numpy(padded)[None], around).crops
    assert near is not None
    assert far is not None
    # OpenCV 4 rounds places to 1/32 pixel, which shows in noise.
    torch.testing.assert_close(near, far, atol=0.1, rtol=0)
    assert (near - far).abs().mean() < 1e-3


def test_only_the_part_under_the_crop_is_read_of_a_huge_frame() -> None:
    # A view of one row: wider than OpenCV's 32767 pixels, and 20 GB were it copied whole.
    frame = (torch.arange(60000) / 60000).expand(1, 3, 30000, 60000)
    faces = make_faces(placed(0.5, centre=(50000, 12000)), height=30000, width=60000)
    aligned = align(frame, faces)
    assert aligned.crops is not None
    centre = transform(invert(aligned.faces[0].matrix), [(256, 256)])[0]
    assert float(aligned.crops[0, 0, 256, 256]) == pytest.approx(centre[0] / 60000, abs=1e-5)


def test_broken_and_bright_pixels_and_alpha_leave_a_sound_crop() -> None:
    frame = torch.full((1, 4, 512, 512), 0.5)
    frame[0, 0, 250, 250] = float("nan")
    frame[0, 1, 200, 200] = float("inf")
    frame[0, 2, 300, 300] = 1000.0
    frame[0, 3] = 0.1
    crops = align(frame, make_faces(TEMPLATE, height=512, width=512), size=256).crops
    assert crops is not None
    assert crops.shape == (1, 3, 256, 256)
    assert bool(((crops >= 0) & (crops <= 1)).all())
    # Every one of them is only one pixel: no ring or stain around it.
    assert int((crops - 0.5).abs().gt(0.1).sum()) <= 3 * 16


@pytest.mark.parametrize(
    ("shape", "border", "message"),
    [
        ((3, 512, 512), "replicate", "frames must be"),
        ((1, 1, 512, 512), "replicate", "frames must be"),
        ((1, 3, 512, 512), "wrap", "padding must be"),
        ((1, 3, 512, 500), "replicate", "belong to"),
        ((2, 3, 512, 512), "replicate", "belong to"),
    ],
)
def test_bad_arguments_are_named(shape: tuple[int, ...], border: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        align(torch.zeros(shape), make_faces(TEMPLATE, height=512, width=512), padding=border)


def test_no_faces_give_no_crops() -> None:
    aligned = align(torch.zeros(1, 3, 1, 1), make_faces(height=1, width=1), size=128)
    assert aligned.crops is not None
    assert aligned.crops.shape == (0, 3, 128, 128)


@settings(max_examples=30, deadline=None)
@given(
    st.floats(1e-3, 1e4),
    st.floats(-np.pi, np.pi),
    st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from(["replicate", "reflect", "constant"]),
)
def test_faces_anywhere_of_any_size_give_crops(
    scale: float, angle: float, centre: tuple[float, float], shape: tuple[int, int], border: str
) -> None:
    height, width = shape
    frame = torch.full((1, 3, height, width), 0.6)
    faces = make_faces(placed(scale, angle, centre), height=height, width=width)
    try:
        crops = align(frame, faces, 64, padding=border).crops
    except ValueError as error:
        # Float32 landmarks a million pixels away may fall onto one point.
        assert "landmarks" in str(error)  # noqa: PT017
        return
    assert crops is not None
    if border == "constant":
        assert bool(((crops >= 0) & (crops <= 1)).all())
    else:
        torch.testing.assert_close(crops, torch.full_like(crops, 0.6), atol=1e-4, rtol=0)


def test_names_that_moved_are_found_at_their_old_place_for_one_version(caplog) -> None:
    from gfp_core import align as module
    from gfp_core import geometry, tensors

    assert module.TEMPLATE is geometry.TEMPLATE
    assert module.visible is tensors.clamp01
    assert "gfp_core.align.TEMPLATE is deprecated" in caplog.text
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        module.nonsense  # noqa: B018


def test_the_old_name_of_padding_is_taken(caplog) -> None:
    frame = torch.rand(1, 3, 100, 100)
    faces = make_faces(TEMPLATE * 0.3 - 60, height=100, width=100)
    old = align(frame, faces, 64, border="constant").crops
    new = align(frame, faces, 64, padding="constant").crops
    assert torch.equal(old, new)
    assert not torch.equal(new, align(frame, faces, 64).crops)
    assert "the name is padding" in caplog.text
