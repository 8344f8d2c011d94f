"""Completion of commands, options and names in bash and zsh."""

import argparse
from collections.abc import Mapping, Sequence

SCRIPT = """_ssltransfer() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} words=
    if [ "$COMP_CWORD" -eq 1 ]; then words="{commands}"
    else case "${{COMP_WORDS[1]}}" in
{cases}
    esac; fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _ssltransfer ssltransfer
"""
ZSH = "autoload -U +X bashcompinit && bashcompinit\n"


def completion_script(parser: argparse.ArgumentParser, shell: str, names: Mapping[str, Sequence[str]]) -> str:
    """A script for `eval`; where no word fits, the shell completes files.

    Args:
        parser: with commands.
        shell: bash or zsh.
        names: command -> words that it takes, besides its options and choices.
    """
    (commands,) = (action.choices for action in parser._actions if isinstance(action.choices, dict))
    cases = []
    for name, command in commands.items():
        words = [option for action in command._actions for option in action.option_strings if option.startswith("--")]
        words += [choice for action in command._actions for choice in action.choices or ()]
        cases.append(f'    {name}) words="{" ".join([*words, *names.get(name, ())])}" ;;')
    script = SCRIPT.format(commands=" ".join(commands), cases="\n".join(cases))
    return ZSH + script if shell == "zsh" else script
