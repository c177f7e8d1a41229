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


def settings(_root_: DictConfig) -> str:
    """Those of the options chosen and of the sections, without what is Hydra's and what is no setting."""
    every: Any = OmegaConf.to_container(_root_, resolve=False)
    return _yaml({key: value for key, value in every.items() if key != "hydra"})


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
            if keys := _settings(OmegaConf.to_container(own, resolve=False)):
                text = _yaml(keys).replace("\n", "\n    ")
                shown.append(f"  {group}={option}:\n    {text}")
    return "\n".join(shown)


def _settings(node: Any) -> Any:
    """`node` without keys that begin with `_`, such as `_target_`, and without sections that have no others."""
    if not isinstance(node, dict):
        return node
    kept = {k: _settings(v) for k, v in node.items() if not str(k).startswith("_") and k != "defaults"}
    return {k: v for k, v in kept.items() if v != {}}


def _yaml(node: Any) -> str:
    # Hydra fills in its help as a string.Template.
    return OmegaConf.to_yaml(OmegaConf.create(_settings(node))).rstrip("\n").replace("$", "$$")


def _options(root: DictConfig) -> Options:
    loader: Any = GlobalHydra.instance().config_loader()
    places: Any = OmegaConf.to_container(root.hydra.overrides.hydra, resolve=False)
    return Options(loader, root.hydra.job.config_name, places)
