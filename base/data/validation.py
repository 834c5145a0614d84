"""The validation data that a config asks for."""

from typing import Any

from utils.config.type_and_args import named_parts
from utils.errors import ConfigError


def validation_data(config: Any, data_loader: Any) -> Any:
    """The loader of section ``valid_data_loader``, or several by name; without one, that of the
    training loader's split. None without any.

    Raises:
        ConfigError: there is a split beside the section.
    """
    sections = named_parts(config.get("valid_data_loader") or {})
    loaders = {name: config.init_obj(f"valid_data_loader.{name}".rstrip("."))
               for name, section in sections.items() if section}
    split = data_loader.split_validation() if hasattr(data_loader, "split_validation") else None
    if loaders and split is not None:
        raise ConfigError("valid_data_loader: the training loader keeps samples for validation as "
                          "well, by validation_split; set that to 0, or leave this section out")
    return loaders.get("", loaders) if loaders else split
