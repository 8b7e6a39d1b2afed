"""The sizes and token ids of a Moondream2. The defaults are the released 2B model of 2025-06-21."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

# The most objects that one prompt finds, and the decoder steps for each: x, y, size; a point has no size.
MAX_OBJECTS = 50
STEPS_PER_OBJECT = 3
STEPS_PER_POINT = 2

# Bounds far above any Moondream2: a damaged or hostile file must not ask for all of the machine.
Width = Annotated[int, Field(gt=0, le=2**16)]
Layers = Annotated[int, Field(gt=0, le=256)]
Heads = Annotated[int, Field(gt=0, le=1024)]
Vocabulary = Annotated[int, Field(gt=0, le=2**20)]
Context = Annotated[int, Field(gt=0, le=2**17)]
CropSize = Annotated[int, Field(gt=0, le=1024)]
Crops = Annotated[int, Field(gt=0, le=64)]
TokenId = Annotated[int, Field(ge=0, lt=2**20)]
TokenIds = Annotated[tuple[TokenId, ...], Field(max_length=1024)]


class ConfigError(ValueError):
    """A model configuration cannot be used; the message names the file and the entry."""


class DamagedConfigError(ConfigError):
    """A configuration file cannot be read as JSON."""


class _Config(BaseModel):
    # `frozen`: a config is shared by every thread that runs the model.
    # Unknown keys are ignored: published files carry training-only entries.
    model_config = ConfigDict(frozen=True, extra="ignore")


def _require_multiple(name: str, value: int, divisor_name: str, divisor: int) -> None:
    if value % divisor:
        raise ValueError(f"{name} {value} is not a multiple of {divisor_name} {divisor}")


def _numbers_in(value: Any) -> Iterator[int]:
    """The numbers in nested dictionaries and sequences."""
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from _numbers_in(item)
    elif value is not None:
        yield value


class VisionConfig(_Config):
    """Vision encoder; `crop_size` is in pixels, `overlap_margin` in patches."""

    enc_dim: Width = 1152
    enc_patch_size: CropSize = 14
    enc_n_layers: Layers = 27
    enc_ff_dim: Width = 4304
    enc_n_heads: Heads = 16
    proj_out_dim: Width = 2048
    crop_size: CropSize = 378
    in_channels: Literal[3] = 3  # images are RGB
    max_crops: Crops = 12
    overlap_margin: Annotated[int, Field(ge=0, le=1024)] = 4
    proj_inner_dim: Width = 8192

    @property
    def grid(self) -> int:
        """Patches along one side of a crop."""
        return self.crop_size // self.enc_patch_size

    @property
    def n_patches(self) -> int:
        """Patches of one crop, and image embeddings of one image."""
        return self.grid**2

    @property
    def margin_px(self) -> int:
        """How far a crop overlaps its neighbours on each side, in pixels."""
        return self.overlap_margin * self.enc_patch_size

    @property
    def window_px(self) -> int:
        """Width of the part of a crop that its neighbours do not cover, in pixels."""
        return self.crop_size - 2 * self.margin_px

    @model_validator(mode="after")
    def _sizes_fit(self) -> "VisionConfig":
        _require_multiple("enc_dim", self.enc_dim, "enc_n_heads", self.enc_n_heads)
        _require_multiple("crop_size", self.crop_size, "enc_patch_size", self.enc_patch_size)
        if self.window_px <= 0:
            raise ValueError(
                f"overlap_margin {self.overlap_margin} leaves nothing of a crop {self.grid} patches wide"
            )
        return self


class TextConfig(_Config):
    """Text decoder."""

    dim: Width = 2048
    ff_dim: Width = 8192
    n_layers: Layers = 24
    vocab_size: Vocabulary = 51200
    max_context: Context = 2048
    n_heads: Heads = 32
    n_kv_heads: Heads = 32

    @property
    def head_dim(self) -> int:
        return self.dim // self.n_heads

    @model_validator(mode="after")
    def _sizes_fit(self) -> "TextConfig":
        _require_multiple("dim", self.dim, "n_heads", self.n_heads)
        _require_multiple("n_heads", self.n_heads, "n_kv_heads", self.n_kv_heads)
        # Half of a head is rotated, in pairs.
        _require_multiple("head dim (dim / n_heads)", self.head_dim, "4", 4)
        return self


class RegionConfig(_Config):
    """Encoders and decoders of coordinates and sizes; `*_out_dim` count the bins."""

    dim: Width = 2048
    coord_feat_dim: Width = 256
    coord_out_dim: Width = 1024
    size_feat_dim: Width = 512
    size_out_dim: Width = 2048
    inner_dim: Width = 8192

    @model_validator(mode="after")
    def _sizes_fit(self) -> "RegionConfig":
        for name in ("coord_feat_dim", "size_feat_dim", "size_out_dim"):
            _require_multiple(name, getattr(self, name), "2", 2)
        if self.size_out_dim < 4:
            raise ValueError("size_out_dim must hold at least two bins for width and two for height")
        return self


class PromptTemplate(_Config):
    """Token ids around a prompt's own tokens."""

    prefix: TokenIds
    suffix: TokenIds


class CaptionTemplates(_Config):
    """Whole prompts, token ids; None for a length that the model was not made to write."""

    short: TokenIds | None = (1, 32708, 2, 12492, 3)
    normal: TokenIds | None = (1, 32708, 2, 6382, 3)
    long: TokenIds | None = (1, 32708, 2, 4059, 3)


class Templates(_Config):
    """The prompts of each skill; None for a skill that the model was not made for."""

    detect: PromptTemplate | None = PromptTemplate(prefix=(1, 7235, 476, 2), suffix=(3,))
    point: PromptTemplate | None = PromptTemplate(prefix=(1, 2581, 2), suffix=(3,))
    query: PromptTemplate | None = PromptTemplate(prefix=(1, 15381, 2), suffix=(3,))
    caption: CaptionTemplates | None = CaptionTemplates()


class TokenizerConfig(_Config):
    """Token ids with a meaning of their own."""

    bos_id: TokenId = 0
    eos_id: TokenId = 0
    answer_id: TokenId = 3
    thinking_id: TokenId = 4
    coord_id: TokenId = 5
    size_id: TokenId = 6
    start_ground_points_id: TokenId = 7
    end_ground_id: TokenId = 9
    templates: Templates = Templates()

    @property
    def special_ids(self) -> dict[str, int]:
        """The ids of special tokens, by the names of their entries."""
        return {name: value for name, value in self if name != "templates"}

    @property
    def template_ids(self) -> set[int]:
        """The ids in all templates."""
        return set(_numbers_in(self.templates.model_dump()))


class Moondream2Config(_Config):
    """A whole Moondream2; `Moondream2Config()` is the released model."""

    vision: VisionConfig = VisionConfig()
    text: TextConfig = TextConfig()
    region: RegionConfig = RegionConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()

    @property
    def prefix_length(self) -> int:
        """Positions of the image prefix: the bos token and the image embeddings."""
        return 1 + self.vision.n_patches

    @property
    def room(self) -> int:
        """How many tokens fit the text decoder's context after the image prefix."""
        return self.text.max_context - self.prefix_length

    @property
    def skills(self) -> list[str]:
        """What the model was made for: "detect", "point", "query", "caption short" and other lengths."""
        templates = self.tokenizer.templates
        prompts = {name: getattr(templates, name) for name in ("detect", "point", "query")}
        ids = {name: None if one is None else (*one.prefix, *one.suffix) for name, one in prompts.items()}
        ids |= {f"caption {length}": own for length, own in templates.caption or ()}
        return [name for name, own in ids.items() if self.has_template(own)]

    def has_template(self, ids: Sequence[int] | None) -> bool:
        """Whether a template is there. The released ones do not fit the vocabulary of a smaller model."""
        return ids is not None and len(ids) > 0 and max(ids) < self.text.vocab_size

    @model_validator(mode="after")
    def _parts_fit(self) -> "Moondream2Config":
        widths = {
            "vision.proj_out_dim": self.vision.proj_out_dim,
            "text.dim": self.text.dim,
            "region.dim": self.region.dim,
        }
        if len(set(widths.values())) > 1:
            raise ValueError(f"these widths must be equal: {widths}")
        given = self.tokenizer.model_dump(exclude_unset=True)
        largest = max((*self.tokenizer.special_ids.values(), *_numbers_in(given)))
        if largest >= self.text.vocab_size:
            raise ValueError(f"token id {largest} is not in the vocabulary of {self.text.vocab_size}")
        if self.prefix_length >= self.text.max_context:
            raise ValueError(
                f"text.max_context {self.text.max_context} leaves no room after "
                f"the image prefix of {self.prefix_length}"
            )
        return self

    @classmethod
    def from_file(cls, path: Path) -> "Moondream2Config":
        """Reads a checkpoint's `config.json`: an object whose `config` holds the sizes.

        A missing key or an empty object means the released model's value.

        Raises:
            DamagedConfigError: the file is missing or not JSON.
            ConfigError: a value does not fit; names the entry.
        """
        try:
            document = _ConfigFile.model_validate_json(path.read_bytes())
        except OSError as error:
            raise DamagedConfigError(f"{path} cannot be read: {error.strerror}") from error
        except ValidationError as error:
            is_json = error.errors()[0]["type"] != "json_invalid"
            problem = ConfigError if is_json else DamagedConfigError
            raise problem(f"{path}: {_first_problem(error)}") from error
        return document.config


class _ConfigFile(_Config):
    config: Moondream2Config = Moondream2Config()

    @model_validator(mode="before")
    @classmethod
    def _null_means_default(cls, document: Any) -> Any:
        return _without_nulls(document)


def _without_nulls(document: Any, keep: bool = False) -> Any:
    """Drops `null` values, which published files write for defaults; a template that is null stays so."""
    if not isinstance(document, dict):
        return document
    return {
        key: _without_nulls(value, keep or key == "templates")
        for key, value in document.items()
        if value is not None or keep
    }


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"])
    return f"{place}: {problem['msg']}" if place else problem["msg"]
