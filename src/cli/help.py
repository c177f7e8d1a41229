"""What `--help` says of the config groups, those of a user's own folder among them."""

from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig


def groups(_root_: DictConfig) -> str:
    """A line per group, its option first; a group that the config does not choose from has a plus sign."""
    loader, choices = GlobalHydra.instance().config_loader(), _root_.hydra.runtime.choices
    lines = []
    for group in sorted(loader.list_groups("")):
        if group != "hydra":
            chosen = choices.get(group)
            others = [option for option in sorted(loader.get_group_options(group)) if option != chosen]
            shown = [f"{chosen} (default)", *others] if chosen else others
            lines.append(f"  {'' if group in choices else '+'}{group}={', '.join(shown)}")
    return "\n".join(lines)
