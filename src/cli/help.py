"""What `--help` says of the config groups, those of a user's own folder among them."""

from typing import Any

from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from src.cli.options import Options


def groups(_root_: DictConfig) -> str:
    """A line per group, its option first; a group that the config does not choose from has a plus sign."""
    options, choices = _options(_root_), _root_.hydra.runtime.choices
    lines = []
    for group in sorted(options.groups()):
        chosen = choices.get(group)
        others = [option for option in sorted(options.options_of(group)) if option != chosen]
        shown = [f"{chosen} (default)", *others] if chosen else others
        lines.append(f"  {'' if group in choices else '+'}{group}={', '.join(shown)}")
    return "\n".join(lines)


def others(_root_: DictConfig) -> str:
    """The settings of options that are not chosen, of each method once: the options that are made of another have the
    same keys."""
    options, choices = _options(_root_), _root_.hydra.runtime.choices
    shown = []
    for group in sorted(set(options.groups()) - {"data", "model"}):
        for option in sorted(options.options_of(group)):
            own = options.option(group, option)
            if option == choices.get(group) or not own.get("_target_"):
                continue
            settings: Any = OmegaConf.to_container(own, resolve=False)
            if keys := {key: value for key, value in settings.items() if key not in ("_target_", "defaults")}:
                text = OmegaConf.to_yaml(OmegaConf.create(keys)).rstrip("\n").replace("\n", "\n    ")
                shown.append(f"  {group}={option}:\n    {text}")
    return "\n".join(shown)


def _options(root: DictConfig) -> Options:
    loader: Any = GlobalHydra.instance().config_loader()
    places: Any = OmegaConf.to_container(root.hydra.overrides.hydra, resolve=False)
    return Options(loader, root.hydra.job.config_name, places)
