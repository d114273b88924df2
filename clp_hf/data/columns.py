"""Which columns of a data set are what: the flags of every command that reads one."""

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Columns:
    """Names of columns in the source and of the values in them; None where the default is meant.

    `"none"` as attribute, group or mask column ignores the default one.

    Attributes:
        image_column, label_column: labels are a `ClassLabel`, strings, or integers 0 ... C - 1.
        attribute_column: the attribute that may be spurious.
        group_column: precomputed groups; else group = label * attributes + attribute.
        mask_column: the causal masks.
        box_column, box_format: boxes instead of masks, in pixels.
        class_names, attribute_names: names in the order of the integers; by default those stored, else the values
            themselves.
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
    box_column: str | None = field(default=None, metadata={"help": "Column of boxes around the object, for masks."})
    box_format: str = field(default="xywh", metadata={"help": "xywh (COCO: left, top, width, height) or xyxy."})
    class_names: list[str] | None = field(default=None, metadata={"help": "Class names, in the order of the labels."})
    attribute_names: list[str] | None = field(default=None, metadata={"help": "Names of the attribute's values."})
