#!/usr/bin/env python3
"""The man page, the Markdown and the completions that the program writes of itself.

    tests/manual.py build/curvd
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

from program import Failure, check

# What a user has typed; what bash must offer, at least. "|": where --name=value is one word for the user, three for bash.
COMPLETIONS = [
    (["tr"], ["train"]),
    ([""], ["train", "options", "checkpoint", "--help", "--version"]),
    (["train", "--meth"], ["--method"]),
    (["train", "--method", "rs"], ["rs-kfac"]),
    (["train", "--method", "=", "adam"], ["adamw"]),
    (["train", "--method", "="], ["sgd", "kfac", "b-r-c-kfac"]),
    (["train", "--lr", ""], ["auto"]),
    (["train", "--batch", ""], []),
    (["train", "--warm-start", "=", "f"], ["false"]),
    (["train", "--warm-start", "--lr-d"], ["--lr-decay"]),
    (["train", "--no-warm-s"], ["--no-warm-start"]),
    (["train", "--config", "ru"], ["run one.yaml", "runs"]),
    (["train", "--resume", ""], ["no", "run one.yaml", "runs"]),
    (["plan", "--ran"], ["--ranks"]),
    (["plan", "--ranks", ""], []),
    (["plan", "--js"], ["--json"]),
    (["plan", "--damping-m"], ["--damping-mode"]),
    (["checkpoint", "v"], ["verify"]),
    (["checkpoint", "verify", "runs/"], ["runs/a"]),
    (["options", "--format", "m"], ["man", "markdown"]),
    (["check", "--form"], ["--form"]),
    (["check", "--form", ""], ["eigen", "cholesky"]),
    (["nonsense", "--me"], []),
]


def output_of(*command, **settings):
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, **settings)
    check(done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    check(done.stderr == "", f"{' '.join(command)} wrote to stderr: {done.stderr}")
    return done.stdout


def check_names(curvd, texts):
    """Every option and command is in each of them."""
    names = [line.split()[0] for line in output_of(curvd, "options", "--origins").splitlines()]
    commands = sorted(set(re.findall(r"^  curvd ([a-z]+)", output_of(curvd, "--help"), re.M)))
    check(len(names) > 80 and "train" in commands, f"{len(names)} options, commands {commands}")
    for name in names:
        flag = "--" + name.replace("_", "-")
        for form, before in {"man": r"(?m)^\\fB", "markdown": "(?m)^- `", "bash": "local options='(?:.* )?", "zsh": "(?m)^    '"}.items():
            check(re.search(f"{before}{flag}(?![a-z-])", texts[form].replace("\\-", "-")), f"{form}: no {flag}")
    for command in commands:
        check(f"\\fBcurvd {command}" in texts["man"], f"man: no command {command}")
        check(re.search(rf"(?m)^ +'{command}:", texts["zsh"]), f"zsh: no command {command}")
    return len(names)


def check_man_page(path):
    """groff finds nothing to warn of, nothing is lost on the way to a terminal, and a dash can be copied from there."""
    with open(path, encoding="utf-8") as f:
        bare = [line for line in f if not line.startswith(".") and re.search(r"(?<!\\)-", line)]
    check(bare == [], f"dashes that a terminal may show as hyphens: {bare[:3]}")
    rendered = output_of("groff", "-ww", "-man", "-Tutf8", "-P-cbou", path)
    for words in ("--lr-decay", "EXIT STATUS", "told to stop, and saved", "checkpoint list|verify|diff|export FOLDER"):
        check(words in " ".join(rendered.split()), f"the rendered page does not say '{words}'")
    check("\\" not in rendered, "the rendered page has a backslash")


def completed(script, words, folder):
    """What bash offers for the last word."""
    ask = 'source "$1"; shift; COMP_WORDS=(curvd "$@"); COMP_CWORD=$#; _curvd; ((${#COMPREPLY[@]} == 0)) || printf "%s\\n" "${COMPREPLY[@]}"'
    return output_of("bash", "-uc", ask, "bash", script, *words, cwd=folder).splitlines()


def check_bash(script):
    folder = os.path.dirname(script)
    os.makedirs(os.path.join(folder, "runs", "a"))
    open(os.path.join(folder, "run one.yaml"), "w", encoding="utf-8").close()
    for words, expected in COMPLETIONS:
        offered = completed(script, words, folder)
        check(set(expected) <= set(offered), f"curvd {' '.join(words)}: bash offers {offered}, not {expected}")
        typed = "" if words[-1] == "=" else words[-1]
        check(all(word.startswith(typed) for word in offered), f"curvd {' '.join(words)}: bash offers {offered}")
        check(expected != [] or offered == [], f"curvd {' '.join(words)}: bash offers {offered}, where nothing can be known")


def check_zsh(script):
    """zsh takes it, and hands its own functions what they should get."""
    ask = ('_arguments() { print -rl -- "$@" }; _describe() { print -rl -- "${(@P)2}" }; '
           'words=(curvd ${(s: :)2}); CURRENT=$#words; source $1')
    for typed, expected in {"tr": "train:", "plan --": "--ranks=:N:( )", "train --": "--config=:FILE:_files",
                            "checkpoint v": "1:what:(list verify diff export)"}.items():
        offered = output_of("zsh", "-fc", ask, "zsh", script, typed).splitlines()
        check(any(line.startswith(expected) for line in offered), f"curvd {typed}: zsh is told {offered}")
    flags = [line for line in output_of("zsh", "-fc", ask, "zsh", script, "train --").splitlines() if re.match(r"--[a-z-]+=?\[", line)]
    for flag in flags:
        check(re.fullmatch(r"--[a-z-]+=?\[([^][:\\]|\\.)*\](:[^][]*)?", flag), f"zsh cannot tell where the text ends in {flag}")
    methods = [line for line in flags if line.startswith("--method=")]
    check(len(methods) == 1 and methods[0].endswith(":choice:(sgd adamw kfac rs-kfac sre-kfac nystrom-kfac b-kfac b-r-kfac b-r-c-kfac)"),
          f"curvd train --method: zsh is told {methods}")


def main():
    curvd = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        texts = {form: output_of(curvd, "options", "--format", form) for form in ("man", "markdown", "bash", "zsh")}
        for form, text in texts.items():
            with open(os.path.join(folder, form), "w", encoding="utf-8") as f:
                f.write(text)
        print(f"{check_names(curvd, texts)} options and all commands are in {', '.join(texts)}")
        check_bash(os.path.join(folder, "bash"))
        print(f"bash: {len(COMPLETIONS)} completions")
        for tool, test, form in (("groff", check_man_page, "man"), ("zsh", check_zsh, "zsh")):
            if shutil.which(tool):
                test(os.path.join(folder, form))
            print(f"{tool}: {'ok' if shutil.which(tool) else 'SKIPPED: it is not installed'}")


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(f"manual: {failure}")
