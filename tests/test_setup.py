"""The set-up begins on any Python from 3.8 on, finds one that fits, and says in one line where it can't."""

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT

TOOLS = ("bash", "cat", "dirname", "getconf", "grep", "ln", "mktemp", "rm", "sed", "tail", "uname")
UV = Path(sys.executable).parent / "uv"
TAKES = (
    "takes Linux on x86-64 or Arm (64 bit, glibc 2.28 or newer), macOS 12 or newer on Apple silicon, or Windows "
    "through WSL, for which TensorFlow is built"
)
# A Python of another version, which has neither venv nor pip.
OTHER_PYTHON = """#!{python}
import sys
sys.version_info, sys.base_prefix = {version}, {prefix!r}
match sys.argv[1:]:
    case "-c", code: pass
    case "-", *arguments: code, sys.argv = sys.stdin.read(), sys.argv[1:]
    case _: sys.exit("No module named " + sys.argv[2])
exec(code)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """What set-up reads, with a folder `bin` that has nothing but the tools that it may use."""
    project = tmp_path / "project"
    shutil.copytree(ROOT / "scripts", project / "scripts")
    for name in ("pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, project / name)
    for folder in ("bin", "home", "tmp", "tools"):
        (tmp_path / folder).mkdir()
    for tool in TOOLS:
        (tmp_path / "bin" / tool).symlink_to(str(shutil.which(tool)))
    return project


def script(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def other_python(path: Path, version: tuple[int, int, int]) -> str:
    return script(path, OTHER_PYTHON.format(python=sys.executable, version=version, prefix=str(path.parents[1])))


def run(project: Path, name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    place = project.parent
    environment = {
        "PATH": str(place / "bin"),
        "HOME": str(place / "home"),
        "TMPDIR": str(place / "tmp"),
        "UV_OFFLINE": "1",
        **environment,
    }
    bash = str(shutil.which("bash"))
    return subprocess.run(
        [bash, f"scripts/{name}", *arguments], cwd=project, env=environment, capture_output=True, text=True
    )


def machine(project: Path, system: str, processor: str, libc: str, bits: str, macos: str) -> None:
    folder = project.parent / "bin"
    script(folder / "uname", f'#!/bin/sh\ncase $1 in -s) echo "{system}";; -m) echo "{processor}";; esac\n')
    known = f'LONG_BIT) echo {bits};; GNU_LIBC_VERSION) echo "{libc}"; test -n "{libc}";;'
    script(folder / "getconf", f"#!/bin/sh\ncase $1 in {known} esac\n")
    script(folder / "sw_vers", f"#!/bin/sh\necho {macos}\n")
    script(folder / "sysctl", f"#!/bin/sh\necho {int(macos == 'rosetta')}\n")


@pytest.mark.parametrize(
    ("system", "processor", "libc", "bits", "macos", "told"),
    [
        ("Linux", "x86_64", "", "64", "", "Linux with another C library than glibc, such as musl"),
        ("Linux", "x86_64", "glibc 2.17", "64", "", "Linux with glibc 2.17"),
        ("Linux", "aarch64", "glibc 2.36", "32", "", "a 32-bit Linux on aarch64"),
        ("Linux", "armv7l", "glibc 2.36", "32", "", "Linux on armv7l"),
        ("Linux", "i686", "glibc 2.36", "32", "", "Linux on i686"),
        ("Linux", "riscv64", "glibc 2.39", "64", "", "Linux on riscv64"),
        ("Darwin", "x86_64", "", "64", "14.5", "macOS on x86_64"),
        ("Darwin", "arm64", "", "64", "11.7.10", "macOS 11.7.10"),
        ("Darwin", "x86_64", "", "64", "rosetta", "a terminal under Rosetta (`arch -arm64 bash` is none)"),
        ("MINGW64_NT-10.0-22631", "x86_64", "", "64", "", "Windows without WSL"),
        ("CYGWIN_NT-10.0", "x86_64", "", "64", "", "Windows without WSL"),
        ("FreeBSD", "amd64", "", "64", "", "FreeBSD on amd64"),
    ],
    ids=lambda value: value.replace(" ", "-"),
)  # fmt: skip
def test_a_machine_without_a_build_is_told_before_anything_is_downloaded(
    project, system, processor, libc, bits, macos, told
):
    machine(project, system, processor, libc, bits, macos)
    before = sorted(project.iterdir())
    done = run(project, "setup.sh", "no-such-python", ".venv", "dev")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"setup: this is {told}; {TAKES}\n"
    assert sorted(project.iterdir()) == before
    assert list((project.parent / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("system", "processor", "libc", "macos"),
    [
        ("Linux", "x86_64", "glibc 2.28", ""),
        ("Linux", "aarch64", "glibc 2.41", ""),
        ("Linux", "x86_64", "glibc 2.39.9000", ""),
        ("Darwin", "arm64", "", "12.0"),
        ("Darwin", "arm64", "", "26.1"),
    ],
)
def test_a_machine_with_a_build_is_taken(project, system, processor, libc, macos):
    machine(project, system, processor, libc, "64", macos)
    done = run(project, "check_machine.sh", "dev")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_cuda_on_a_mac_is_one_line(project):
    machine(project, "Darwin", "arm64", "", "64", "15.0")
    done = run(project, "check_machine.sh", "dev,gpu")
    assert done.returncode == 2
    assert done.stderr == "setup: EXTRAS=dev,gpu: gpu is TensorFlow's CUDA build, which there is for Linux only\n"


def test_a_python_that_fits_is_taken_without_a_word(project):
    uv = script(project.parent / "bin" / "uv", "#!/bin/sh\nexit 1\n")
    given = script(
        project.parent / "fits" / "python", f'#!/bin/sh\ntest "$1" = -m || exec {sys.executable} "$@"\nexit 1\n'
    )
    done = run(project, "find_python.sh", given, str(project.parent / "tools"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == sys._base_executable
    assert os.readlink(project.parent / "tools" / "uv") == uv


@pytest.mark.skipif(not UV.is_file(), reason="make setup EXTRAS=dev")
@pytest.mark.parametrize("version", [(2, 7, 18), (3, 8, 18), (3, 10, 13), (3, 14, 0)])
def test_another_python_in_the_path_is_found(project, version):
    given = other_python(project.parent / "given" / "bin" / "python", version)
    (project.parent / "bin" / "uv").symlink_to(UV)
    (project.parent / "bin" / "python3").symlink_to(sys._base_executable)
    done = run(project, "find_python.sh", given, str(project.parent / "tools"))
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).samefile(sys._base_executable)
    assert done.stderr.startswith(f"setup: PYTHON={given} is Python {'.'.join(map(str, version))}; taking ")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(not UV.is_file(), reason="make setup EXTRAS=dev")
def test_another_python_of_the_same_version_manager_is_found(project):
    """pyenv, asdf and mise keep each in a folder of its own and put only those in the path that are chosen."""
    versions = project.parent / "versions"
    given = other_python(versions / "3.10.13" / "bin" / "python", (3, 10, 13))
    (versions / "other" / "bin").mkdir(parents=True)
    (versions / "other" / "bin" / "python3").symlink_to(sys._base_executable)
    (project.parent / "bin" / "uv").symlink_to(UV)
    done = run(project, "find_python.sh", given, str(project.parent / "tools"))
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).samefile(sys._base_executable)


@pytest.mark.skipif(not UV.is_file(), reason="make setup EXTRAS=dev")
@pytest.mark.parametrize("home", ["home", "none"])
def test_where_nothing_fits_and_nothing_can_be_fetched_it_is_one_line(project, home):
    given = other_python(project.parent / "given" / "bin" / "python", (3, 10, 13))
    (project.parent / "bin" / "uv").symlink_to(UV)
    (project / ".venv").mkdir()
    (project / ".venv" / "installed-dev").touch()
    before = sorted(project.rglob("*"))
    done = run(project, "setup.sh", given, ".venv", "dev", HOME=str(project.parent / home))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        f"setup: PYTHON={given} is Python 3.10.13, no other Python here is >=3.11,<3.14, and uv can't fetch one: "
    )
    assert done.stderr.count("\n") == 1
    assert sorted(project.rglob("*")) == before  # the environment of before as well
    assert list((project.parent / "tmp").iterdir()) == []


@pytest.mark.parametrize("version", [None, (2, 7, 18), (3, 7, 16)])
def test_a_python_too_old_to_begin_with_is_one_line(project, version):
    given = other_python(project.parent / "given" / "bin" / "python", version) if version else "python3"
    done = run(project, "setup.sh", given, ".venv", "dev")
    name = f"Python {'.'.join(map(str, version))}" if version else "not a Python that runs"
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"setup: PYTHON={given} is {name} and can't install uv: it takes Python 3.8 or newer to begin with, e.g. make "
        "setup PYTHON=python3.12\n"
    )


def test_a_python_without_venv_and_pip_is_one_line(project):
    given = other_python(project.parent / "given" / "bin" / "python", (3, 10, 12))
    done = run(project, "setup.sh", given, ".venv", "dev")
    assert done.returncode == 2
    assert done.stderr == (
        f"setup: PYTHON={given} is Python 3.10.12 and can't install uv: it has neither venv nor pip, "
        "which Debian and Ubuntu keep apart, in python3-venv\n"
    )


# --- An environment that is there already ------------------------------------------------------------------------


@pytest.fixture
def make(project: Path) -> Callable[..., str]:
    """Calls make in a project without dependencies, where nothing is to be fetched; gives what it says on stderr."""
    (project / "pyproject.toml").write_text(
        '[project]\nname = "empty"\nversion = "0"\nrequires-python = ">=3.11,<3.14"\ndependencies = []\n'
        "[project.optional-dependencies]\ndev = []\ntfds = []\n"
    )
    (project / "requirements.lock").write_text("uv==0\n")
    shutil.copy(ROOT / "Makefile", project)
    # pip, which `--seed` installs, is not there offline.
    without_seed = f'test "$1" != venv || exec {UV} venv --quiet --python "$5" "$6"\nexec {UV} "$@"\n'
    script(project.parent / "bin" / "uv", f"#!/bin/sh\n{without_seed}")
    given = script(project.parent / "python", f'#!/bin/sh\ntest "$1" = -m || exec {sys.executable} "$@"\nexit 1\n')
    place = project.parent
    environment = {"HOME": str(place / "home"), "TMPDIR": str(place / "tmp"), "UV_OFFLINE": "1"}

    def call(folder: Path, *arguments: str) -> str:
        done = subprocess.run(
            [str(shutil.which("make")), f"PYTHON={given}", *arguments],
            cwd=folder,
            env={"PATH": str(place / "bin"), **environment},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    return call


@pytest.mark.skipif(not UV.is_file(), reason="make setup EXTRAS=dev")
@pytest.mark.parametrize("copied", [False, True], ids=["moved", "copied"])
def test_an_environment_that_was_moved_or_copied_is_made_anew(project, make, copied):
    make(project, "setup", "EXTRAS=dev,tfds")
    there = project.parent / "there"
    if copied:
        shutil.copytree(project, there, symlinks=True)
    else:
        project.rename(there)
    said = make(there, "setup").splitlines()
    assert said[0] == f"setup: .venv was made in {project.resolve()}/.venv and works only there; making it anew"
    assert len(said) == 2
    assert str(there) in (there / ".venv" / "bin" / "activate").read_text()
    assert (there / ".venv" / "extras").read_text() == "dev,tfds\n"
    assert make(there, "setup") == "", "it is whole"


@pytest.mark.skipif(not UV.is_file(), reason="make setup EXTRAS=dev")
def test_an_environment_behind_a_link_is_as_it_was_made(project, make):
    make(project, "setup")
    there = project.parent / "there"
    shutil.copytree(project, there, ignore=shutil.ignore_patterns(".venv"))
    (there / ".venv").symlink_to(project / ".venv")
    link = project.parent / "link"
    link.symlink_to(project)
    assert (make(there, "setup"), make(link, "setup")) == ("", "")


@pytest.mark.skipif(not UV.is_file(), reason="make setup EXTRAS=dev")
def test_more_extras_make_the_environment_anew_from_what_was_fetched(project, make):
    first, _ = make(project, "setup").splitlines()
    assert first.startswith("setup: making .venv from requirements.lock: TensorFlow and what it needs, about 3 GB")
    more, _ = make(project, "setup", "EXTRAS=dev,tfds").splitlines()
    assert more == "setup: making .venv anew, with EXTRAS=dev,tfds; what is in uv's cache is not fetched again"


def test_the_ui_takes_no_script_that_names_a_folder():
    # As it is called from a shell, also where `make test` has called this.
    shell = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(["make", "--dry-run", "ui"], cwd=ROOT, env=shell, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].startswith(".venv/bin/python -m mlflow ui ")


# --- A Python without the packages -------------------------------------------------------------------------------

COMMANDS = [path.stem for path in sorted((ROOT / "src").glob("[a-z]*.py"))]
USE = "; `make setup` makes .venv, and .venv/bin/python runs this command\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_python_without_the_packages_is_one_line(name):
    no_packages = [sys.executable, "-S", "-m", f"src.{name}"]
    environment = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"}
    done = subprocess.run(no_packages, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {sys.executable} does not have the package ")
    assert done.stderr.endswith(USE)
    assert done.stderr.count("\n") == 1


def test_a_python_too_old_for_the_code_is_one_line():
    code = "import sys; sys.version_info, sys.argv = (3, 8, 18), ['-m']; import src"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {sys.executable} is Python 3.8 and has to be one from 3.11 to 3.13{USE}"
    ast.parse((ROOT / "src" / "__init__.py").read_text(), feature_version=(3, 8))  # which such a Python reads
