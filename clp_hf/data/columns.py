"""Which columns of a data set are what: the flags of every command that reads one."""

from dataclasses import dataclass, field

BOX_FORMATS = (
    "xywh", "xyxy", "cxcywh", "normalised_xywh", "normalised_xyxy", "normalised_cxcywh",
)  # fmt: skip


@dataclass(kw_only=True)
class Columns:
    """Names of columns in the source and of the values in them; None where the default is meant.

    `"none"` as attribute, group or mask column ignores the default one.

    Attributes:
        image_column, label_column: labels are a `ClassLabel`, strings, or integers.
        attribute_column: the attribute that may be spurious.
        group_column: precomputed groups; else group = label * attributes + attribute.
        mask_column: the causal masks.
        mask_value: the values of a mask's pixels (of a palette image its indices) that are foreground; by default as
            `clp_hf.data.mask_values` says.
        box_column, box_format: boxes instead of masks, one for each image: left, top, width, height (`xywh`), left,
            top, right, bottom (`xyxy`) or centre, width, height (`cxcywh`), in pixels, or `normalised_`, as shares of
            the image.
        class_names, attribute_names: of bare integers, the names in their order; of labels that have names, these in
            the order that is wanted. By default the names stored, else the values themselves.
    """

    image_column: str | None = field(default=None, metadata={"help": "Column of the images; by default image or img."})
    label_column: str | None = field(
        default=None, metadata={"help": "Column of the labels; by default label or fine_label."}
    )
    attribute_column: str | None = field(
        default=None, metadata={"help": "Column of the spurious attribute; by default place, background or attribute."}
    )
    group_column: str | None = field(
        default=None, metadata={"help": "Column of the groups; by default group, else made of label and attribute."}
    )
    mask_column: str | None = field(default=None, metadata={"help": "Column of the masks; by default mask."})
    mask_value: list[int] | None = field(
        default=None,
        metadata={"help": "Values of the masks' pixels that are foreground, where that can be read in several ways."},
    )
    box_column: str | None = field(default=None, metadata={"help": "Column of boxes around the object, for masks."})
    box_format: str = field(
        default="xywh",
        metadata={
            "help": "Pixels as xywh (COCO: left, top, width, height), xyxy or cxcywh (centre, width, height), or "
            "shares of the image as normalised_xywh, normalised_xyxy or normalised_cxcywh (YOLO).",
            "choices": list(BOX_FORMATS),
        },
    )
    class_names: list[str] | None = field(
        default=None,
        metadata={"help": "Names of integer labels, in their order; of labels with names, these in the order wanted."},
    )
    attribute_names: list[str] | None = field(
        default=None, metadata={"help": "Names of the attribute's values, likewise."}
    )
