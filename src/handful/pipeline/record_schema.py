"""What files of a run folder must hold to be read: types, ranges, finite numbers, names of classes.

A folder may be a stranger's. Keys that are not named here are kept and not looked at; keys that
earlier versions of handful did not write have a default.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    InstanceOf,
    ValidationError,
)

from handful.errors import HandfulError

MOST_CLASSES = 10_000
LONGEST_NAME = 1_000  # characters of a class name; of a file name four times as many
LARGEST_SIDE = 2_048  # pixels a side that a network is shown images at
LARGEST_OPTION = 65_536  # of the numbers that a network's options may be

Share = Annotated[FiniteFloat, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=10**15)]
Seconds = Annotated[FiniteFloat, Field(ge=0, le=1e12)]
Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]


def _text(shortest: int, longest: int) -> AfterValidator:
    """A string of some length. File names need not be Unicode, which pydantic's own strings are."""

    def check(text: str) -> str:
        if not shortest <= len(text) <= longest:
            raise ValueError(f"a text of {shortest} to {longest} characters is needed")
        return text

    return AfterValidator(check)


Word = Annotated[InstanceOf[str], _text(1, 1_000)]
Name = Annotated[InstanceOf[str], _text(0, 4 * LONGEST_NAME)]
Said = Annotated[InstanceOf[str], _text(0, 20_000)]
ClassName = Annotated[InstanceOf[str], _text(1, LONGEST_NAME)]


def _distinct(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("a class is named twice")
    return names


def _bounded(options: dict[str, Any]) -> dict[str, Any]:
    """Options of a network: words, numbers that ask for no giant, and one level of such options."""
    for key, value in options.items():
        if isinstance(value, dict) and key == "options":
            _bounded(value)
        elif isinstance(value, str):
            if len(value) > 200:
                raise ValueError(f"option {key[:50]!r} is too long")
        elif not isinstance(value, int | float | None) or (value and abs(value) > LARGEST_OPTION):
            raise ValueError(f"option {key[:50]!r} is not a word or a number of a usual size")
    return options


def _rising(scale: list[Any]) -> list[Any]:
    """A scale: of one kind of files, or of whole numbers and of floating-point files."""
    if len(scale) == 2 and all(isinstance(one, list) for one in scale):
        if [one[2:] for one in map(_rising_of_one, scale)] != [[False], [True]]:
            raise ValueError("two ranges, and not of whole numbers and of real ones")
        return scale
    return _rising_of_one(scale)


def _rising_of_one(scale: list[Any]) -> list[Any]:
    ends = [end for end in scale[:2] if isinstance(end, float | int) and abs(end) < 1e300]
    if len(scale) != 3 or len(ends) != 2 or not ends[0] < ends[1] or type(scale[2]) is not bool:
        raise ValueError("not a range of pixel values: lowest, highest, whether they are real")
    return scale


ClassNames = Annotated[
    list[ClassName], Field(min_length=1, max_length=MOST_CLASSES), AfterValidator(_distinct)
]


Scale = Annotated[list[Any], AfterValidator(_rising)] | None


class Part(BaseModel):
    """Values are of their types as they stand: "1" is no number, and neither is true."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow", protected_namespaces=())


class Data(Part):
    source: Name
    images: Count
    labeled: Count
    unlabeled: Count
    test: Count
    classes: ClassNames
    hash: Word


Whole = Annotated[int, Field(ge=-(2**63), lt=2**64)]
Scalar = bool | Whole | FiniteFloat | Name | None


class Method(Part):
    name: Word


class Network(Part):
    name: Word
    options: Annotated[dict[str, Any], AfterValidator(_bounded)] = {}


class NetworkOfRun(Network):
    parameters: Count
    weights: Word | None = None


class Input(Part):
    size: Side
    channels: Annotated[int, Field(ge=1, le=3)]
    aspect: Said
    flips: bool
    value_range: Scale = None


class Collapsed(Part):
    model_config = ConfigDict(extra="forbid")

    step: Count
    reason: Said
    kept: Count
    right: Share | None = None
    chance: Share = 0.0


class Training(Part):
    steps: Count
    images_seen: Count
    device: Word
    threads: Count
    precision: Word
    seconds: Seconds
    collapse: Collapsed | None = None
    remark: Said | None = None
    budget: Seconds | None = None


class Stage(Part):
    steps: Count
    seconds: Seconds
    collapse: Said | None = None


class Scored(Part):
    """An accuracy with its interval; None in all three where there is none."""

    accuracy: Share | None
    low: Share | None
    high: Share | None
    level: Share = 0.9


class Abstention(Part):
    sure: Share
    threshold: Share
    share: Share
    accuracy: Share


class Estimate(Scored):
    how: Said
    caveats: list[Said] = Field(default=[], max_length=100)
    abstentions: list[Abstention] = Field(default=[], max_length=100)
    balanced_accuracy: Share | None = None
    balanced_low: Share | None = None
    balanced_high: Share | None = None


class Tested(Part):
    accuracy: Share
    low: Share
    high: Share
    level: Share
    n: Count


class Forecast(Part):
    labels: Count
    accuracy: Share
    low: Share
    high: Share
    level: Share = 0.9


class Candidate(Scored):
    method: Word
    backbone: Word
    seconds: Seconds
    verdict: Said
    chosen: bool = False


class ToLabel(Part):
    file: Name
    why: Word
    pixels: Name


class Earlier(Part):
    fingerprint: Word
    labeled: Count
    estimate: Estimate | None = None


class RunRecord(Part):
    """run.json. docs/design.md says what the keys mean."""

    handful: Word
    seed: Whole
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
    label_issues: Count | None = None
    forecast: list[Forecast] = Field(default=[], max_length=1_000)
    label_next: list[ToLabel] | None = Field(default=[], max_length=1_000_000)
    choice: list[Candidate] = Field(default=[], max_length=1_000)
    init: Word | None = None
    stage: Stage | None = None
    prior: dict[ClassName, Share] | None = None
    prior_from: Said = "labels"
    after: Earlier | None = None


class PredictorHeader(Part):
    """What the header of model.safetensors says of the network."""

    backbone: Network
    classes: ClassNames
    size: Side
    channels: Annotated[int, Field(ge=1, le=3)]
    fit: Literal["crop", "pad", "stretch"] = "crop"
    precision: Literal["fp32", "bf16"] = "fp32"
    temperature: Annotated[FiniteFloat, Field(gt=0, le=1e6)] = 1.0
    frozen: bool = False
    value_range: Scale = None
    head: Annotated[list[Any], Field(max_length=100)] | None = None


class Normalized(Part):
    mean: list[FiniteFloat] = Field(min_length=1, max_length=3)
    std: list[Annotated[FiniteFloat, Field(gt=0)]] = Field(min_length=1, max_length=3)


class PretrainedInput(Part):
    size: Side
    channels: Annotated[int, Field(ge=1, le=3)]
    aspect: Literal["crop", "pad", "stretch"]
    value_range: Scale = None


class PretrainedTraining(Part):
    steps: Count
    seconds: Seconds


class PretrainedRecord(Part):
    """pretrained.json."""

    backbone: Network
    input: PretrainedInput
    normalize: Normalized
    hash: Word


class ClassRow(Part):
    name: ClassName
    n: Count
    predicted: Count
    precision: Share | None
    recall: Share | None
    f1: Share | None


class Bin(Part):
    n: Count
    confidence: Share | None
    accuracy: Share | None


class TestRecord(Tested):
    """test.json."""

    classes: ClassNames
    per_class: list[ClassRow]
    reliability: list[Bin] = Field(max_length=10_000)
    confusion: list[list[Count]]


class CellRecord(Part):
    """A cell of a comparison."""

    method: Word
    draw: Whole
    test_accuracy: Share
    estimate: Scored | None
    seconds: Seconds
    trouble: Said = ""


class Compared(Part):
    source: Name
    per_class: Count
    classes: Count
    test: Count


class ComparisonRecord(Part):
    """comparison.json."""

    cells: list[CellRecord] = Field(min_length=1, max_length=100_000)
    data: Compared | dict[str, Any] | None = None


DEFAULTS: dict[str, Any] = {
    key: field.get_default(call_default_factory=True)
    for key, field in RunRecord.model_fields.items()
    if not field.is_required()
}


def checked(schema: type[Part], found: Any, path: Path) -> dict[str, Any]:
    """What was found, as it is; HandfulError names the file and the first thing wrong in it."""
    try:
        schema.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))[:200] or "all of it"
        raise HandfulError(
            f"{path} does not hold what handful writes there ({place}: {first['msg']}); is "
            f"{path.parent} a run folder? If so, restore it or fit again"
        ) from None
    return found
