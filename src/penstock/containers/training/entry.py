"""Script mode, inside the sandbox: unpacks the code, installs what it asks for, and becomes the script.

    entry.py SOURCE PROGRAM [ARGUMENT ...]

SOURCE is where the code comes from, as the job says it: an S3 URI (its archive lies in /opt/penstock/source, a folder's
files lie in the code folder already), or a path. PROGRAM is the script's name in it: a Python file, also without its
suffix (a module of a package where there is a setup.py), or anything else that the shell can run.

The environment is set already. The script takes this process's place, so that a signal to the job reaches it; only what
goes wrong before that is told here, in /opt/ml/output/failure. Runs on Python 3.6 and later, with the standard library.
"""

import os
import shlex
import shutil
import stat
import subprocess
import sys
import tarfile
from typing import Dict, List, Optional

CODE = os.environ.get("PENSTOCK_CODE", "/opt/ml/code")
SOURCE = os.environ.get("PENSTOCK_SOURCE", "/opt/penstock/source")
FAILURE = os.environ.get("PENSTOCK_FAILURE", "/opt/ml/output/failure")
ARCHIVES = (".tar.gz", ".tgz", ".tar")
TAIL_LINES = 20


class Failed(Exception):
    """What the job's FailureReason is to say after its class, "AlgorithmError: ", which all that a failure file says has."""


def main(arguments: List[str]) -> int:
    """Prepares the code and becomes the script; gives an exit code only where that fails."""
    source, program, rest = arguments[0], arguments[1], arguments[2:]
    try:
        lay_code(source)
        program = find_program(program)
        path = os.path.join(CODE, program)
        packaged = os.path.exists(os.path.join(CODE, "setup.py"))
        kind = kind_of(program, packaged)
        if kind != "package" and not os.path.exists(path):
            raise Failed(f"ImportError: there is no {program} in the code ({source})")
        if kind != "command":
            install(packaged)
        command = command_of(kind, program, rest)
    except Failed as error:
        return fail(str(error))
    if kind == "command":
        os.chmod(path, 0o700)
    os.chdir(CODE)
    words = " ".join(shlex.quote(word) for word in command)
    say(f"Invoking script with the following command:\n\n{words}\n")
    try:
        os.execve(command[0], command, script_environment())  # noqa: S606
    except OSError as error:
        return fail(f"ExecuteUserScriptError: {command[0]}: {error.strerror}")


def find_program(program: str) -> str:
    """The program's file; a Python module may be named without its suffix.

    Source: AWS's XGBoost image runs `python -m` of the program's name.
    """
    path = os.path.join(CODE, program)
    return program + ".py" if os.path.exists(path + ".py") and not os.path.exists(path) else program


def kind_of(program: str, packaged: bool) -> str:
    """How a program is run: "package", "script" or "command"."""
    if program.endswith(".sh") or not (program.endswith(".py") or packaged):
        return "command"
    return "package" if packaged else "script"


def command_of(kind: str, program: str, arguments: List[str]) -> List[str]:
    """The command line of the program."""
    if kind == "package":
        module = program[:-3] if program.endswith(".py") else program
        return [sys.executable, "-m", module.replace("/", "."), *arguments]
    if kind == "script":
        return [sys.executable, program, *arguments]
    words = " ".join(shlex.quote(word) for word in ["./" + program, *arguments])
    return ["/bin/sh", "-c", words]


def script_environment() -> Dict[str, str]:
    """The environment without what is only for this program."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}


# --- the code


def lay_code(source: str) -> None:
    """Puts the code into the code folder."""
    if not os.path.isdir(CODE):
        os.makedirs(CODE)
    if "://" in source and not source.startswith("file://"):
        for name in sorted(os.listdir(SOURCE)) if os.path.isdir(SOURCE) else []:
            if name.endswith(ARCHIVES):
                unpack(os.path.join(SOURCE, name), CODE)
        return
    path = source[len("file://") :] if source.startswith("file://") else source
    if os.path.isdir(path):
        if os.path.realpath(path) != os.path.realpath(CODE):
            copy_folder(path, CODE)
    elif os.path.isfile(path) and path.endswith(ARCHIVES):
        unpack(path, CODE)
    elif os.path.isfile(path):
        shutil.copy2(path, CODE)
    else:
        raise Failed(f"sagemaker_submit_directory {source} is not there")


def copy_folder(source: str, target: str) -> None:
    for name in os.listdir(source):
        path, made = os.path.join(source, name), os.path.join(target, name)
        if os.path.isdir(path) and not os.path.islink(path):
            if os.path.exists(made):
                copy_folder(path, made)
            else:
                shutil.copytree(path, made, symlinks=True)
        else:
            shutil.copy2(path, made, follow_symlinks=False)


def unpack(archive: str, target: str) -> None:
    """Unpacks an archive below a folder.

    Raises Failed for names and links that lead out of it, for devices, and for what is no archive.
    """
    try:
        with tarfile.open(archive) as tar:
            members = []
            for member in tar:
                checked = check_member(member)
                if checked is not None:
                    members.append(checked)
            tar.extractall(target, members=members, **unfiltered())  # type: ignore[arg-type]  # noqa: S202
    except (tarfile.TarError, EOFError, OSError) as error:
        raise Failed(f"{os.path.basename(archive)} cannot be unpacked: {error}") from None


def unfiltered() -> Dict[str, str]:
    """What tells newer Pythons that the members are checked already."""
    return {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}


def check_member(member: tarfile.TarInfo) -> Optional[tarfile.TarInfo]:
    """The member as it is unpacked; None for the archive's own root."""
    name = os.path.normpath(member.name) if member.name else "."
    if name == ".":
        return None
    if name.startswith(("/", "../")) or name == "..":
        raise Failed(f"the code's archive has a member outside of it: {member.name}")
    if member.issym() or member.islnk():
        folder = os.path.dirname(name) if member.issym() else ""
        outside = os.path.normpath(os.path.join(folder, member.linkname)).startswith("..")
        if member.linkname.startswith("/") or outside:
            raise Failed(f"the code's archive has a link out of it: {member.name}")
    elif not (member.isfile() or member.isdir()):
        raise Failed(f"the code's archive has a member that is no file: {member.name}")
    member.name = name
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = (member.mode & 0o777) | (stat.S_IRWXU if member.isdir() else stat.S_IRUSR | stat.S_IWUSR)
    return member


# --- packages


def install(packaged: bool) -> None:
    """Installs the code's requirements.txt, and the code itself where it is a package.

    Raises Failed with the installer's last lines.
    """
    wanted = ["."] if packaged else []
    if os.path.exists(os.path.join(CODE, "requirements.txt")):
        wanted += ["-r", "requirements.txt"]
    if not wanted:
        return
    say("Installing module." if packaged else "Installing dependencies from requirements.txt")
    command = [sys.executable, "-m", "pip", "install", *wanted]
    process = subprocess.Popen(
        command, cwd=CODE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True, errors="replace"
    )
    tail: List[str] = []
    for line in process.stdout or ():
        sys.stdout.write(line)
        sys.stdout.flush()
        tail = [*tail, line.rstrip()][-TAIL_LINES:]
    code = process.wait()
    if code:
        name = "InstallModuleError" if packaged else "InstallRequirementsError"
        wrong = [line for line in tail if line.startswith("ERROR")] or tail
        words, line = "\n".join(wrong[-3:]), " ".join(command)
        raise Failed(f'{name}:\nExitCode {code}\nErrorMessage "{words}"\nCommand "{line}"')


# --- telling


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def fail(message: str) -> int:
    """Leaves the reason where the job's FailureReason is read from."""
    sys.stderr.write(message + "\n")
    sys.stderr.flush()
    try:
        folder = os.path.dirname(FAILURE)
        if not os.path.isdir(folder):
            os.makedirs(folder)
        with open(FAILURE, "w") as file:
            file.write(message)
    except OSError as error:
        sys.stderr.write(f"{FAILURE}: {error.strerror}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
