"""What of `torchvision:NAME` can be refused before torchvision is imported."""

from polyteach.ground.model_names import may_be_torchvision_model, torchvision_models
from polyteach.ground.names import unknown_name
from polyteach.teachers._files import at_file


def check(name: str) -> None:
    """Refuse an unknown model, or weights that are not there.

    Raises:
        ValueError: there is no such model; names the closest. Or no such file.
    """
    arch, _ = at_file(name)
    if not may_be_torchvision_model(arch):
        raise unknown_name("torchvision model", arch, list(torchvision_models()))
