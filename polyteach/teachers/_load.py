"""From a spec to a teacher that answers."""

from polyteach.ground.files import downloading
from polyteach.teachers import check_teacher, family_module
from polyteach.teachers.contract import Teacher


def load_teacher(spec: str, device: str = "cpu", precision: str = "fp32") -> Teacher:
    """The teacher named by FAMILY:NAME, ready to answer.

    device: as torch names it, such as "cuda:0". precision: "fp32", or "fp16" and "bf16" by autocast.

    Raises:
        ValueError: unknown family, model or precision, missing weights; the message lists what there is.
    """
    family, name = check_teacher(spec, precision)
    module = family_module(family)
    with downloading():
        teacher: Teacher = module.load(name, device, precision)
    teacher.spec = spec
    return teacher
