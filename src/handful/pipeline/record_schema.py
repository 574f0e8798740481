"""Schemas of the files in a run folder: types, ranges, finite numbers, class names.

A folder may come from someone else. Keys that are not in a schema are kept and not checked; keys
that earlier versions of handful did not write have a default.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    InstanceOf,
    ValidationError,
)

from handful.errors import HandfulError
from handful.text import FEW

MOST_CLASSES = 10_000
LONGEST_NAME = 1_000  # characters of a class name; file names may have four times as many
LARGEST_SIDE = 2_048  # pixels a side of the images that a network gets
LARGEST_OPTION = 65_536  # of a number in a network's options


def _at_most_one(share: object) -> object:
    """A share of 1 that an earlier version wrote with an error of rounding, as 1."""
    return 1.0 if isinstance(share, float) and 1 < share < 1 + 1e-9 else share


Share = Annotated[FiniteFloat, BeforeValidator(_at_most_one), Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=10**15)]
Seconds = Annotated[FiniteFloat, Field(ge=0, le=1e12)]
Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]


def _text(shortest: int, longest: int) -> AfterValidator:
    """Return a validator of the length of a string.

    pydantic's own strings must be valid Unicode, which file names need not be.
    """

    def check(text: str) -> str:
        if not shortest <= len(text) <= longest:
            raise ValueError(f"a text of {shortest} to {longest} characters is needed")
        return text

    return AfterValidator(check)


Word = Annotated[InstanceOf[str], _text(1, 1_000)]
Name = Annotated[InstanceOf[str], _text(0, 4 * LONGEST_NAME)]
Text = Annotated[InstanceOf[str], _text(0, 20_000)]
ClassName = Annotated[InstanceOf[str], _text(1, LONGEST_NAME)]


def _check_distinct(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("a class is named twice")
    return names


def _check_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return options of a network; ValueError unless they are short texts and bounded numbers.

    `options` may hold options of an inner network, and `other` describes a second one.
    """
    for key, value in options.items():
        if key == "other":
            known = isinstance(value, dict) and set(value) == {"trained", "options", "side"}
            if not known or not isinstance(value["trained"], str):
                raise ValueError("option 'other' is not a network, its options and a side")
            _check_options(value)
        elif key == "options" and isinstance(value, dict):
            _check_options(value)
        elif isinstance(value, str):
            if len(value) > 200:
                raise ValueError(f"option {key[:50]!r} is too long")
        elif not isinstance(value, int | float | None) or (value and abs(value) > LARGEST_OPTION):
            raise ValueError(f"option {key[:50]!r} is not a word or a number of a usual size")
    return options


def _check_scale(scale: list[Any]) -> list[Any]:
    """Return a pixel scale: one range, or two, of integer and of floating-point files."""
    if len(scale) == 2 and all(isinstance(one, list) for one in scale):
        if [one[2:] for one in map(_check_range, scale)] != [[False], [True]]:
            raise ValueError("two ranges, and not one of whole numbers and one of real numbers")
        return scale
    return _check_range(scale)


def _check_range(scale: list[Any]) -> list[Any]:
    ends = [end for end in scale[:2] if isinstance(end, float | int) and abs(end) < 1e300]
    if len(scale) != 3 or len(ends) != 2 or not ends[0] < ends[1] or type(scale[2]) is not bool:
        raise ValueError("not a range of pixel values: lowest, highest, whether they are real")
    return scale


ClassNames = Annotated[
    list[ClassName], Field(min_length=1, max_length=MOST_CLASSES), AfterValidator(_check_distinct)
]


Scale = Annotated[list[Any], AfterValidator(_check_scale)] | None


class StrictModel(BaseModel):
    """Base of all schemas: no conversion of types, so "1" and true are no numbers."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="allow", protected_namespaces=(), defer_build=True
    )


class CropsMade(StrictModel):
    file: Name
    min_confidence: Share
    padding: Annotated[FiniteFloat, Field(ge=0, le=2)]
    square: bool


class Whole(StrictModel):
    """What an interim run has learned a part of."""

    images: Count
    labeled: Count


class Data(StrictModel):
    source: Name
    images: Count
    labeled: Count
    unlabeled: Count
    test: Count
    classes: ClassNames
    hash: Word
    boxes: CropsMade | None = None
    whole: Whole | None = None
    labels_by_folder: bool | None = None  # None: of an earlier version, which did not record it


Integer = Annotated[int, Field(ge=-(2**63), lt=2**64)]
Scalar = bool | Integer | FiniteFloat | Name | None


class Method(StrictModel):
    name: Word


class Network(StrictModel):
    name: Word
    options: Annotated[dict[str, Any], AfterValidator(_check_options)] = {}


class NetworkOfRun(Network):
    parameters: Count
    weights: Word | None = None
    origins: list[dict[str, Text]] = []


class Input(StrictModel):
    size: Side
    channels: Annotated[int, Field(ge=1, le=3)]
    aspect: Text
    flips: bool
    value_range: Scale = None


class TrainingFailure(StrictModel):
    model_config = ConfigDict(extra="forbid")

    step: Count
    reason: Text
    kept: Count
    right: Share | None = None
    chance: Share = 0.0


class Training(StrictModel):
    steps: Count
    images_seen: Count
    device: Word
    threads: Count
    precision: Word
    engine: Word = "torch"
    seconds: Seconds
    collapse: TrainingFailure | None = None
    remark: Text | None = None
    budget: Seconds | None = None


class Member(StrictModel):
    """A classifier of an ensemble."""

    method: Method
    backbone: Network
    size: Side
    precision: Word
    engine: Word


class Pretraining(StrictModel):
    steps: Count
    seconds: Seconds
    collapse: Text | None = None


class Scored(StrictModel):
    """An accuracy with its interval; all three are None where there is no estimate."""

    accuracy: Share | None
    low: Share | None
    high: Share | None
    level: Share = 0.9


class Abstention(StrictModel):
    sure: Share
    threshold: Share
    share: Share
    accuracy: Share
    held: Share | None = None  # earlier versions promised nothing: half of their thresholds fail


class Estimate(Scored):
    how: Text
    n: Count = FEW  # earlier versions gave no estimate of fewer labels
    out_of_fold: Share | None = None
    caveats: list[Text] = Field(default=[], max_length=100)
    abstentions: list[Abstention] = Field(default=[], max_length=100)
    guessing: bool = False
    balanced_accuracy: Share | None = None
    balanced_low: Share | None = None
    balanced_high: Share | None = None
    confidence: Share | None = None
    pool_temperature: Annotated[FiniteFloat, Field(gt=0, le=1e6)] | None = None


class Tested(StrictModel):
    accuracy: Share
    low: Share
    high: Share
    level: Share
    n: Count


class Forecast(StrictModel):
    labels: Count
    accuracy: Share
    low: Share
    high: Share
    level: Share = 0.9


class Candidate(Scored):
    method: Word
    backbone: Word
    seconds: Seconds
    verdict: Text
    chosen: bool = False


class Fixed(StrictModel):
    """What the user fixed of network and training where `auto` chose the rest."""

    backbone: Word | None = None
    settings: dict[Word, Word] = Field(default={}, max_length=1_000)


class Suggestion(StrictModel):
    file: Name
    why: Word
    pixels: Name


class Groups(StrictModel):
    """How the labelled images were grouped."""

    asked: Text
    by: Text
    labels: Count
    scenes: Count
    signs: list[Text] = Field(default=[], max_length=100)
    likely: Count | None = None
    likely_signs: list[Text] = Field(default=[], max_length=100)
    likely_accuracy: Share | None = None


class EarlierRun(StrictModel):
    fingerprint: Word
    labeled: Count
    estimate: Estimate | None = None


class RunRecord(StrictModel):
    """Schema of run.json; docs/design.md explains the keys."""

    handful: Word
    seed: Integer
    seconds: Seconds
    data: Data
    method: Method
    schedule: dict[str, Scalar] | None
    backbone: NetworkOfRun
    input: Input
    training: Training
    estimate: Estimate | None
    test: Tested | None
    fingerprint: Word
    versions: dict[Word, Word]
    command: list[Name] | None = None
    members: list[Member] = Field(default=[], max_length=3)
    label_issues: Count | None = None
    forecast: list[Forecast] = Field(default=[], max_length=1_000)
    label_next: list[Suggestion] | None = Field(default=[], max_length=1_000_000)
    choice: list[Candidate] = Field(default=[], max_length=1_000)
    fixed: Fixed = Field(default_factory=lambda: Fixed())
    init: Word | None = None
    stage: Pretraining | None = None
    prior: dict[ClassName, Share] | None = None
    prior_from: Text = "labels"
    after: EarlierRun | None = None
    groups: Groups | None = None
    interim: bool = False  # the same command goes on and replaces this run by a better one


class PredictorHeader(StrictModel):
    """Schema of the network's description in the header of model.safetensors."""

    backbone: Network
    classes: ClassNames
    size: Side
    channels: Annotated[int, Field(ge=1, le=3)]
    fit: Literal["crop", "pad", "stretch"] = "crop"
    precision: Literal["int8", "fp32", "bf16"] = "fp32"
    temperature: Annotated[FiniteFloat, Field(gt=0, le=1e6)] = 1.0
    frozen: bool = False
    value_range: Scale = None
    head: Annotated[list[Any], Field(max_length=100)] | None = None


class Normalized(StrictModel):
    mean: list[FiniteFloat] = Field(min_length=1, max_length=3)
    std: list[Annotated[FiniteFloat, Field(gt=0)]] = Field(min_length=1, max_length=3)


class PretrainedInput(StrictModel):
    size: Side
    channels: Annotated[int, Field(ge=1, le=3)]
    aspect: Literal["crop", "pad", "stretch"]
    value_range: Scale = None


class PretrainedRecord(StrictModel):
    """Schema of pretrained.json."""

    backbone: Network
    input: PretrainedInput
    normalize: Normalized
    hash: Word


class ClassRow(StrictModel):
    name: ClassName
    n: Count
    predicted: Count
    precision: Share | None
    recall: Share | None
    f1: Share | None


class Bin(StrictModel):
    n: Count
    confidence: Share | None
    accuracy: Share | None


class TestRecord(Tested):
    """Schema of test.json."""

    classes: ClassNames
    per_class: list[ClassRow]
    reliability: list[Bin] = Field(max_length=10_000)
    confusion: list[list[Count]]


class CellRecord(StrictModel):
    """Schema of the file of one cell of a comparison."""

    method: Word
    draw: Integer
    test_accuracy: Share
    estimate: Scored | None
    seconds: Seconds
    trouble: Text = ""


class ComparisonData(StrictModel):
    source: Name
    per_class: Count
    classes: Count
    test: Count


class ComparisonRecord(StrictModel):
    """Schema of comparison.json."""

    cells: list[CellRecord] = Field(min_length=1, max_length=100_000)
    data: ComparisonData | dict[str, Any] | None = None
    command: Annotated[list[Name], Field(max_length=1_000)] = []
    changed: Annotated[dict[Word, Name], Field(max_length=1_000)] = {}


def checked(schema: type[StrictModel], found: Any, path: Path) -> dict[str, Any]:
    """Return `found` unchanged; HandfulError names the file and its first error."""
    _validated(schema, found, path)
    return found


def parsed(schema: type[StrictModel], found: Any, path: Path) -> dict[str, Any]:
    """Check `found` and return it with the defaults of all keys that are missing."""
    return _validated(schema, found, path).model_dump()


def _validated(schema: type[StrictModel], found: Any, path: Path) -> StrictModel:
    try:
        return schema.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))[:200] or "all of it"
        raise HandfulError(
            f"{path} does not hold what handful writes there ({place}: {first['msg']}); is "
            f"{path.parent} a run folder? If so, restore it or fit again"
        ) from None
