import subprocess
import sys


def test_reading_a_card_does_not_import_torch() -> None:
    imports = "import sys, spinemet.model.card, spinemet.on_ray.screen; print(*{'torch', 'ray'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", imports], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
