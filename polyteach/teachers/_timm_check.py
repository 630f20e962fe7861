"""What of `timm:NAME` can be refused before timm is imported."""

from polyteach.ground.model_names import may_be_timm_model, timm_models
from polyteach.ground.names import unknown_name
from polyteach.teachers._files import at_file

ELSEWHERE = ("hf-hub:", "hf_hub:", "local-dir:")
"""What a NAME begins with that is no model's name but a location."""


def check(name: str) -> None:
    """Refuse an unknown model, or weights that are not there.

    Raises:
        ValueError: there is no such model; names the closest. Or no such file.
    """
    arch, _ = at_file(name)
    if not arch.startswith(ELSEWHERE) and not may_be_timm_model(arch):
        raise unknown_name("timm model", arch, timm_models())
