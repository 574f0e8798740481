import math

import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import RandAugment as TorchvisionRandAugment
from torchvision.transforms.v2 import functional as tv

from handful.data.augmentation import photometric
from handful.data.augmentation.geometric import (
    Crop,
    Elastic,
    Flip,
    ResizedCrop,
    Rotate,
    Scale,
    Shear,
    Shift,
)
from handful.data.augmentation.photometric import Blur, ColorJitter, CutOut, Grey, Noise
from handful.data.augmentation.pipelines import OPERATIONS, PIPELINES, Pipeline, named
from handful.data.augmentation.randaugment import MEMBERS, RandAugment

BILINEAR = InterpolationMode.BILINEAR
SHAPES = [(6, 1, 28, 28), (6, 3, 32, 32), (6, 3, 21, 30)]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(shape, seed=0):
    return torch.rand(shape, generator=generator(seed))


def affine(image, angle=0.0, translate=(0.0, 0.0), scale=1.0, shear=(0.0, 0.0)):
    """torchvision's affine on one image (C, H, W)."""
    return tv.affine(image, angle, list(translate), scale, list(shear), interpolation=BILINEAR)


def as_torchvision(operation, images, values):
    """Apply torchvision's functions with these values, image by image."""
    results = []
    for image, value in zip(images, values.tolist(), strict=True):
        match operation:
            case Flip(vertical=True):
                result = tv.vertical_flip(image) if value else image
            case Flip():
                result = tv.horizontal_flip(image) if value else image
            case Rotate():
                result = tv.rotate(image, value, interpolation=BILINEAR)
            case Shear():
                result = affine(image, shear=value)
            case Shift():
                result = affine(image, translate=value)
            case Scale():
                result = affine(image, scale=value)
        results.append(result)
    return torch.stack(results)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "operation",
    [Flip(), Flip(vertical=True), Rotate(45), Shear(x=30, y=20), Shift(0.3), Scale((0.5, 2.0))],
    ids=repr,
)
def test_a_move_agrees_with_torchvision(operation, shape):
    images = pictures(shape)
    values = operation.draw(images.shape, generator(1))
    ours = Pipeline((operation,), fill=0.0).apply(images, (values,))
    theirs = as_torchvision(operation, images, values)
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_chain_of_moves_is_one_resampling(shape):
    """torchvision's affine makes shear, scale, rotation and shift in one resampling, too."""
    images = pictures(shape)
    chain = Pipeline((Shear(x=20, y=10), Scale((0.7, 1.4)), Rotate(30), Shift(0.2)), fill=0.0)
    shear, scale, angle, shift = values = chain.draw(images.shape, generator(1))
    theirs = [
        affine(image, -a, t, s, k)
        for image, a, t, s, k in zip(
            images, angle.tolist(), shift.tolist(), scale.tolist(), shear.tolist(), strict=True
        )
    ]
    torch.testing.assert_close(chain.apply(images, values), torch.stack(theirs), atol=2e-5, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_resized_crop_agrees_with_torchvision_inside_its_outermost_pixels(shape):
    images = pictures(shape)
    operation = ResizedCrop(scale=(0.2, 0.9))
    values = operation.draw(images.shape, generator(1))
    ours = Pipeline((operation,)).apply(images, (values,))
    height, width = shape[2:]
    for image, result, window in zip(images, ours, values.int().tolist(), strict=True):
        theirs = tv.resized_crop(image, *window, [height, width], antialias=True)
        # Within half a pixel of the window's edge torchvision repeats the edge; we interpolate.
        y, x = math.ceil(height / window[2] / 2), math.ceil(width / window[3] / 2)
        inside = (slice(None), slice(y, height - y), slice(x, width - x))
        torch.testing.assert_close(result[inside], theirs[inside], atol=2e-5, rtol=0)
        assert (result - theirs).abs().max() <= 0.5  # and at most half of a neighbour's value there


@pytest.mark.parametrize("shape", SHAPES)
def test_the_whole_window_leaves_the_image_as_it_is(shape):
    images = pictures(shape)
    whole = torch.tensor([[0.0, 0.0, shape[2], shape[3]]]).expand(shape[0], 4)
    result = Pipeline((ResizedCrop(),)).apply(images, (whole,))
    torch.testing.assert_close(result, images, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_elastic_field_agrees_with_torchvision(shape):
    images = pictures(shape)
    values = Elastic(strength=0.05).draw(images.shape, generator(1))
    ours = Pipeline((Elastic(),), fill=0.0).apply(images, (values,))
    half = torch.tensor([shape[3] / 2, shape[2] / 2])  # torchvision counts from -1 to 1
    theirs = [
        tv.elastic(image, (field.permute(1, 2, 0) / half)[None], interpolation=BILINEAR, fill=None)
        for image, field in zip(images, values, strict=True)
    ]
    torch.testing.assert_close(ours, torch.stack(theirs), atol=2e-5, rtol=0)


def test_an_elastic_field_after_a_turn_joins_its_resampling():
    images = pictures((4, 1, 28, 28))
    turn, field = Rotate(30), Elastic(strength=0.05)
    chain = Pipeline((turn, field), fill=0.0)
    angles, displacement = values = chain.draw(images.shape, generator(1))
    y, x = torch.meshgrid(torch.arange(28.0) - 13.5, torch.arange(28.0) - 13.5, indexing="ij")
    radians = angles.deg2rad()[:, None, None]
    x, y = x + displacement[:, 0], y + displacement[:, 1]
    x, y = x * radians.cos() - y * radians.sin(), x * radians.sin() + y * radians.cos()
    grid = torch.stack([x, y], dim=-1) / 14
    expected = torch.nn.functional.grid_sample(images, grid, align_corners=False)
    torch.testing.assert_close(chain.apply(images, values), expected, atol=2e-5, rtol=0)


def test_an_elastic_field_displaces_by_its_strength_everywhere_and_smoothly():
    field = Elastic(strength=0.05, smoothness=0.14).draw(torch.Size((4000, 1, 20, 40)), generator())
    spread = field.std(dim=0)
    torch.testing.assert_close(spread[0], torch.full((20, 40), 2.0), atol=0.2, rtol=0)
    torch.testing.assert_close(spread[1], torch.full((20, 40), 1.0), atol=0.1, rtol=0)
    assert field.diff(dim=3).std() < 0.35 * field.std()


def test_moving_whole_pixels_copies_them_exactly():
    images = (pictures((64, 3, 32, 32)) * 255).byte()
    pipeline = PIPELINES["flip-crop"]
    flips, corners = values = pipeline.draw(images.shape, generator(1))
    ours = pipeline.apply(images, values)
    for image, result, flip, (top, left) in zip(images, ours, flips, corners.tolist(), strict=True):
        flipped = tv.horizontal_flip(image) if flip else image
        theirs = tv.crop(tv.pad(flipped, [4] * 4), top + 4, left + 4, 32, 32)
        assert torch.equal(result, theirs.float() / 255)


@pytest.mark.parametrize(("fill", "mode"), [("reflect", "reflect"), ("edge", "edge")])
def test_beyond_the_border_lies_what_torchvision_pads_with(fill, mode):
    images = pictures((8, 3, 32, 32))
    corners = torch.tensor([[-4, 4], [4, -4], [-3, 0], [0, 2], [4, 4], [-4, -4], [1, 1], [0, 0]])
    ours = Pipeline((Crop(),), fill=fill).apply(images, (corners,))
    for image, result, (top, left) in zip(images, ours, corners.tolist(), strict=True):
        padded = tv.pad(image, [4] * 4, padding_mode=mode)
        assert torch.equal(result, tv.crop(padded, top + 4, left + 4, 32, 32))


def test_beyond_the_border_lies_each_images_own_background():
    paper = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.9, 0.8]])[:, :, None, None]
    images = paper.repeat(1, 1, 16, 16)
    images[:, :, 0, 3:6] = 0.5  # a stroke that reaches the border
    away = torch.tensor([[20.0, 0.0]]).expand(2, 2)
    result = Pipeline((Shift(),), fill="background").apply(images, (away,))
    torch.testing.assert_close(result, paper.expand(2, 3, 16, 16))


def test_a_grey_level_beyond_the_border_meets_the_image_without_a_seam():
    images = torch.full((1, 1, 8, 8), 0.7)
    turned = Pipeline((Rotate(),), fill=0.7).apply(images, (torch.tensor([30.0]),))
    torch.testing.assert_close(turned, images)


def test_a_window_of_another_size_is_cut_out():
    images = pictures((5, 3, 96, 96))
    pipeline = Pipeline((Flip(0.0), Crop(padding=0.0, size=64)))
    _, corners = values = pipeline.draw(images.shape, generator(1))
    result = pipeline.apply(images, values)
    for image, window, (top, left) in zip(images, result, corners.tolist(), strict=True):
        assert torch.equal(window, image[:, top : top + 64, left : left + 64])


def test_a_window_after_an_elastic_field_is_cut_from_the_deformed_image():
    images = pictures((2, 1, 24, 24))
    field, window = Elastic(), Crop(padding=0.0, size=16)
    pipeline = Pipeline((field, window))
    values = pipeline.draw(images.shape, generator(1))
    deformed = Pipeline((field,)).apply(images, values[:1])
    assert torch.equal(
        pipeline.apply(images, values), Pipeline((window,)).apply(deformed, values[1:])
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("ours", "theirs", "factors"),
    [
        (photometric.brightness, tv.adjust_brightness, (0.0, 1.9)),
        (photometric.contrast, tv.adjust_contrast, (0.0, 1.9)),
        (photometric.saturation, tv.adjust_saturation, (0.0, 1.9)),
        (photometric.hue, tv.adjust_hue, (-0.5, 0.5)),
    ],
)
def test_a_colour_change_agrees_with_torchvision(ours, theirs, factors, shape):
    images = pictures(shape)
    images[0, :, :4] = 0.5  # greys have no hue
    images[1, :, :4] = 0.0
    factor = torch.linspace(*factors, shape[0])
    expected = [theirs(i, f) for i, f in zip(images, factor.tolist(), strict=True)]
    torch.testing.assert_close(ours(images, factor), torch.stack(expected), atol=2e-6, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_blur_agrees_with_torchvision(shape):
    images = pictures(shape)
    sigma = torch.tensor([0.1, 0.5, 0.0, 1.0, 2.0, 0.0])
    ours = Blur(kernel=0.25).apply(images, sigma)
    kernel = round(0.25 * min(shape[2:])) // 2 * 2 + 1
    for image, result, s in zip(images, ours, sigma.tolist(), strict=True):
        theirs = tv.gaussian_blur(image, [kernel, kernel], [s, s]) if s else image
        torch.testing.assert_close(result, theirs, atol=2e-6, rtol=0)


def test_grey_agrees_with_torchvision_where_it_was_drawn():
    images = pictures((4, 3, 8, 8))
    chosen = torch.tensor([True, False, True, False])
    ours = Grey().apply(images, chosen)
    theirs = torch.where(chosen[:, None, None, None], tv.rgb_to_grayscale(images, 3), images)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_cut_out_agrees_with_torchvision():
    images = pictures((3, 3, 16, 16))
    boxes = torch.tensor([[2.0, 3.0, 10.0, 11.0], [0.0, 0.0, 16.0, 16.0], [5.0, 5.0, 5.0, 5.0]])
    ours = CutOut(fill=0.5).apply(images, boxes)
    for image, result, (top, left, bottom, right) in zip(
        images, ours, boxes.int().tolist(), strict=True
    ):
        level = torch.tensor(0.5)
        assert torch.equal(result, tv.erase(image, top, left, bottom - top, right - left, level))


def test_noise_has_each_images_own_strength():
    drawn = Noise(sigma=(0.0, 0.2)).draw(torch.Size((200, 1, 32, 32)), generator())
    spread = drawn.std(dim=(1, 2, 3))
    assert spread.min() < 0.02 and spread.max() > 0.18
    assert spread.mean() == pytest.approx(0.1, abs=0.01)


def test_colours_change_in_the_order_brightness_contrast_saturation_hue():
    images = pictures((2, 3, 8, 8))
    values = torch.tensor([[1.3, 0.6, 1.5, 0.1], [0.7, 1.4, 0.2, -0.2]])
    ours = ColorJitter(0.4, 0.4, 0.5, 0.2).apply(images, values)
    for image, result, (b, c, s, h) in zip(images, ours, values.tolist(), strict=True):
        theirs = tv.adjust_contrast(tv.adjust_brightness(image, b), c)
        theirs = tv.adjust_hue(tv.adjust_saturation(theirs, s), h)
        torch.testing.assert_close(result, theirs, atol=5e-6, rtol=0)


MOVES = {"identity", "shear_x", "shear_y", "shift_x", "shift_y", "rotate"}
THEIR_NAMES = {
    "shift_x": "TranslateX",
    "shift_y": "TranslateY",
    "shear_x": "ShearX",
    "shear_y": "ShearY",
    "autocontrast": "AutoContrast",
}


def chosen_by_hand(pairs, size, strength=0.6):
    """Values (N, 2, S) of RandAugment for given names, all at one strength, signs alternating."""
    values = torch.zeros(len(pairs), 2, len(pairs[0]))
    for row, names in enumerate(pairs):
        for step, name in enumerate(names):
            level = MEMBERS[name].level(torch.tensor(strength), size)
            sign = -1 if MEMBERS[name].signed and (row + step) % 2 else 1
            values[row, :, step] = torch.tensor([list(MEMBERS).index(name), level * sign])
    return values


def torchvision_step(image, name, level):
    return TorchvisionRandAugment(interpolation=BILINEAR)._apply_image_or_video_transform(
        image, THEIR_NAMES.get(name, name.capitalize()), level, BILINEAR, {torch.Tensor: None}
    )


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 21, 30)])
def test_randaugment_agrees_with_torchvision_on_every_pair_in_its_order(shape):
    pairs = [(a, b) for a in MEMBERS for b in MEMBERS if a not in MOVES or b not in MOVES]
    images = pictures((len(pairs), *shape))
    values = chosen_by_hand(pairs, shape[1:])
    ours = Pipeline((RandAugment(members=tuple(MEMBERS)),), fill=0.0).apply(images, (values,))
    for image, result, names, levels in zip(
        images, ours, pairs, values[:, 1].tolist(), strict=True
    ):
        theirs = image
        for name, level in zip(names, levels, strict=True):
            theirs = torchvision_step(theirs, name, level)
        # A pixel at a step of posterize, solarize or equalize may fall to either side of it.
        stepped = bool({"posterize", "solarize", "equalize"} & set(names))
        wrong = ((result - theirs).abs() > 5e-5).float().mean()
        assert wrong <= (0.01 if stepped else 0), f"{names} differ in {wrong:.1%} of the pixels"


def test_two_moves_of_randaugment_are_one_resampling():
    images = pictures((1, 3, 32, 32))
    values = chosen_by_hand([("rotate", "shift_x")], (32, 32))
    angle, shift = values[0, 1].tolist()
    ours = Pipeline((RandAugment(),), fill=0.0).apply(images, (values,))
    theirs = affine(images[0], angle=-angle, translate=(shift, 0.0))
    torch.testing.assert_close(ours[0], theirs, atol=2e-5, rtol=0)


def test_randaugment_may_have_moves_only():
    images = pictures((2, 3, 32, 32))
    pipeline = Pipeline((RandAugment(members=("rotate", "shift_x"), vary=True),), fill=0.0)
    moved = pipeline(images, torch.Generator().manual_seed(0))
    assert moved.shape == images.shape and not torch.equal(moved, images)


def test_randaugment_joins_the_moves_before_and_after_it():
    """A rotation and the opposite rotation join to the identity, so no pixel changes."""
    images = pictures((2, 3, 32, 32))
    values = chosen_by_hand([("rotate", "identity"), ("identity", "rotate")], (32, 32))
    back = -values[:, 1].sum(dim=1)
    before = Pipeline((Rotate(), RandAugment()), fill=0.0).apply(images, (back, values))
    after = Pipeline((RandAugment(), Rotate()), fill=0.0).apply(images, (values, back))
    torch.testing.assert_close(before, images, atol=5e-5, rtol=0)
    torch.testing.assert_close(after, images, atol=5e-5, rtol=0)


def test_randaugment_paints_only_after_the_moves_before_it_are_made():
    images = pictures((2, 3, 32, 32))
    away = torch.tensor([[0.0, 16.0], [0.0, 16.0]])
    values = chosen_by_hand([("invert", "identity"), ("identity", "invert")], (32, 32))
    pipeline = Pipeline((Shift(), RandAugment(members=tuple(MEMBERS))), fill=0.0)
    result = pipeline.apply(images, (away, values))
    torch.testing.assert_close(result[:, :, :16], torch.ones(2, 3, 16, 32), atol=1e-5, rtol=0)


@pytest.mark.parametrize("magnitude", [0, 1, 9, 17, 30])
def test_randaugment_draws_torchvisions_table(magnitude):
    operation = RandAugment(magnitude=magnitude, members=tuple(MEMBERS))
    values = operation.draw(torch.Size((3000, 3, 32, 64)), generator())
    theirs = TorchvisionRandAugment._AUGMENTATION_SPACE
    for index, name in enumerate(MEMBERS):
        levels = values[:, 1][values[:, 0] == index].unique()
        table, signed = theirs.get(THEIR_NAMES.get(name, name.capitalize()), (None, False))
        expected = table(31, 32, 64) if table else None
        level = 0.0 if expected is None else float(expected[magnitude])
        level = float(int(level)) if name.startswith("shift") else level
        expected = sorted({-level, level}) if signed else [level]
        torch.testing.assert_close(levels, torch.tensor(expected), atol=1e-6, rtol=1e-5)


def test_randaugment_can_vary_its_magnitude():
    shape = torch.Size((2000, 3, 32, 32))
    turns = RandAugment(magnitude=10, vary=True, members=("rotate",)).draw(shape, generator())
    degrees = turns[:, 1].abs().unique()
    torch.testing.assert_close(degrees, torch.arange(1.0, 11.0), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "operation",
    [Rotate(), Crop(), ResizedCrop(), Elastic(), Blur(), Noise(), CutOut(), RandAugment()],
)
def test_every_image_draws_its_own_values(operation):
    values = operation.draw(torch.Size((64, 3, 32, 32)), generator())
    assert len(values) == 64
    assert len(values.flatten(1).unique(dim=0) if values.ndim > 1 else values.unique()) > 24


def test_images_left_out_by_chance_stay_as_they_are():
    jitter = ColorJitter(0.4, 0.4, 0.4, 0.1, probability=0.5)
    values = jitter.draw(torch.Size((1000, 3, 4, 4)), generator())
    unchanged = (values == torch.tensor([1.0, 1.0, 1.0, 0.0])).all(dim=1)
    assert unchanged.float().mean() == pytest.approx(0.5, abs=0.06)
    images = pictures((1000, 3, 4, 4))
    torch.testing.assert_close(jitter.apply(images, values)[unchanged], images[unchanged])


def test_resized_crops_stay_inside_and_cover_the_areas_asked_for():
    crop = ResizedCrop(scale=(0.2, 1.0))
    top, left, height, width = crop.draw(torch.Size((5000, 3, 36, 32)), generator()).unbind(dim=1)
    assert (top >= 0).all() and (top + height <= 36).all()
    assert (left >= 0).all() and (left + width <= 32).all()
    share = height * width / (36 * 32)
    assert 0.17 < share.min() < 0.25 and share.max() > 0.95


def test_a_window_that_does_not_fit_is_drawn_anew():
    crop = ResizedCrop(scale=(0.85, 0.9))
    _, _, height, width = crop.draw(torch.Size((5000, 3, 64, 64)), generator()).unbind(dim=1)
    # Half of the windows drawn first do not fit; cutting them would make them too small.
    assert (height * width / 64**2 > 0.83).float().mean() > 0.99


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_pipeline_keeps_to_its_contract(name, channels):
    images = (pictures((8, channels, 64, 64)) * 255).byte()
    before = images.clone()
    views = PIPELINES[name](images, generator(3))
    assert views.shape == images.shape and views.dtype == torch.float32 and views.is_contiguous()
    assert views.min() >= 0 and views.max() <= 1
    assert torch.equal(images, before)
    assert torch.equal(views, PIPELINES[name](images, generator(3)))
    if name != "none":
        assert not torch.equal(views, PIPELINES[name](images, generator(4)))


@pytest.mark.parametrize("name", PIPELINES)
def test_bytes_and_floats_give_the_same_views(name):
    images = (pictures((4, 3, 64, 64)) * 255).byte()
    floats = images.float() / 255
    before = floats.clone()
    from_bytes = PIPELINES[name](images, generator(3))
    from_floats = PIPELINES[name](floats, generator(3))
    assert torch.equal(from_bytes, from_floats)
    assert torch.equal(floats, before)
    assert from_floats.data_ptr() != floats.data_ptr()


def test_flips_are_off_for_symbols_unless_asked():
    with_flips = named("weak", flips=True)
    without = named("weak", flips=False)
    assert any(isinstance(o, Flip) for o in with_flips.operations)
    assert not any(isinstance(o, Flip) for o in without.operations)
    assert len(without.operations) == len(with_flips.operations) - 1


def test_a_pipeline_of_ones_own_keeps_its_flips():
    own = Pipeline((Flip(),))
    assert named(own, flips=False) is own


def test_the_fill_of_a_named_pipeline_can_be_chosen():
    assert named("weak", flips=True).fill == "reflect"
    assert named("weak", flips=True, fill="background").fill == "background"


def test_a_misspelt_pipeline_is_answered_with_the_nearest_name():
    with pytest.raises(
        ValueError, match=r"no augmentation pipeline 'digit'. Did you mean 'digits'"
    ):
        named("digit", flips=False)


def test_operations_are_taken_out_of_a_pipeline_and_added_to_it():
    changed = named("simclr,-blur, +cut-out,+rotate", flips=False)
    kinds = [type(operation) for operation in changed.operations]
    assert kinds == [Rotate, ResizedCrop, ColorJitter, Grey, CutOut]


def test_a_flip_that_is_added_by_name_was_asked_for():
    assert isinstance(named("digits,+flip", flips=False).operations[0], Flip)


def test_taking_out_a_flip_that_symbols_never_had_is_no_error():
    assert named("weak,-flip", flips=False) == named("weak", flips=False)


def test_every_operation_can_be_added_by_its_name():
    images = pictures((4, 3, 16, 16))
    for name, operation in OPERATIONS.items():
        assert named(f"none,+{name}", flips=False).operations == (operation,)
        named(f"none,+{name}", flips=False)(images, generator())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("simclr,blur", "'blur' in the pipeline 'simclr,blur' must start with [+] to add"),
        ("simclr,-blurr", "no operation 'blurr'. Did you mean 'blur'"),
        ("weak,-blur", "'-blur': the pipeline 'weak' has no blur to take out; it has flip, crop"),
        ("none,-blur", "it has no operations"),
    ],
)
def test_a_change_that_makes_no_sense_is_explained(text, message):
    with pytest.raises(ValueError, match=message):
        named(text, flips=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pipeline(fill="mirror"), "fill must be 'background', 'reflect', 'edge' or a grey"),
        (lambda: CutOut(fill="reflect"), "fill must be 'background' or a grey level"),
        (lambda: Flip(1.5), "probability must be from 0 to 1, got 1.5"),
        (lambda: ResizedCrop(scale=(1.0, 0.2)), r"scale must be a pair \(smallest, largest\)"),
        (lambda: RandAugment(magnitude=31), "magnitude must be from 0 to 30"),
        (lambda: RandAugment(members=("blur",)), r"members must be some of identity.*'blur'"),
        (lambda: ColorJitter(hue=0.7), "hue must be from 0 to 0.5, got 0.7"),
    ],
)
def test_impossible_parameters_are_refused_when_the_object_is_made(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_window_larger_than_the_images_is_refused():
    with pytest.raises(ValueError, match="choose a size up to 32"):
        Pipeline((Crop(padding=0.0, size=64),))(pictures((2, 3, 32, 32)), generator())


def test_tensors_that_are_no_batch_of_images_are_refused():
    with pytest.raises(
        ValueError, match=r"shape \(N, C, H, W\) with 1 or 3 channels, got \(3, 8, 8\)"
    ):
        Pipeline()(torch.zeros(3, 8, 8), generator())
    with pytest.raises(TypeError, match="uint8 or float images, got torch.int64"):
        Pipeline()(torch.zeros(1, 3, 8, 8, dtype=torch.int64), generator())
