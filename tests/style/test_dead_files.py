"""Every module is reached from somewhere: a process's own file, a test of it is not enough."""

from pathlib import Path

from tests.style.tree import files_of, imports_of, module_name, project_files, text_of

# Packages whose modules are loaded by walking the folder, with the file that walks it.
LOADED_BY_FOLDER: dict[str, str] = {}


def is_started_by_name(path: Path) -> bool:
    """One file per process in gespann/main, and what Python itself starts."""
    return path.parts[1] == "main" or path.name == "__main__.py"


def test_every_module_is_imported() -> None:
    reached: set[str] = set()
    for path in files_of(".py", "gespann", "bench"):
        for item in imports_of(path):
            reached |= {item.module, f"{item.module}.{item.name}"}
    dead = [
        str(path)
        for path in files_of(".py", "gespann")
        if path.name != "__init__.py"
        and not is_started_by_name(path)
        and module_name(path) not in reached
        and path.parent.as_posix() not in LOADED_BY_FOLDER
    ]
    assert not dead, f"nobody imports: {dead}"


def test_folders_are_loaded_where_it_is_said() -> None:
    for folder, loader in LOADED_BY_FOLDER.items():
        assert "iter_modules" in (text_of(Path(loader)) or ""), f"{loader} does not walk {folder}"


def test_every_package_says_what_it_is() -> None:
    silent = [
        str(path)
        for path in files_of(".py", "gespann")
        if path.name == "__init__.py" and not (text_of(path) or "").lstrip().startswith(('"""', "'''"))
    ]
    assert not silent, f"a package's first line says what is inside: {silent}"


def test_every_folder_of_modules_is_a_package() -> None:
    packages = {path.parent for path in project_files() if path.name == "__init__.py"}
    lone = sorted({str(path.parent) for path in files_of(".py", "gespann")} - set(map(str, packages)))
    assert not lone, f"no __init__.py in {lone}"
