"""The handshake: no Python, no package, a package of another version, and structs that agree."""

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import vapoursynth as vs
from children import python

from vs_vsr.errors import BridgeError
from vs_vsr.plugin import bridge
from vs_vsr.plugin.gpu import GpuDeviceStruct, GpuFrameStruct

CREATE = """
try:
    core.vsr.BasicVSR(core.std.BlankClip(format=vs.RGBS, width=8, height=8))
except vs.Error as e:
    print(e)
"""

HOST = r"""
#include "VapourSynth4.h"
#include <dlfcn.h>
#include <stdio.h>
int main(int count, char **arguments) {
    (void)count;
    void *library = dlopen(arguments[1], RTLD_NOW);
    VSGetVapourSynthAPI get = (VSGetVapourSynthAPI)dlsym(library, "getVapourSynthAPI");
    const VSAPI *api = get(VAPOURSYNTH_API_VERSION);
    VSCore *core = api->createCore(0);
    VSPlugin *vsr = api->getPluginByNamespace("vsr", core);
    VSPlugin *std = api->getPluginByNamespace("std", core);
    VSMap *nothing = api->createMap();
    VSMap *version = api->invoke(vsr, "Version", nothing);
    printf("%d\n", (int)api->mapGetInt(version, "abi", 0, 0));
    VSMap *clip = api->invoke(std, "BlankClip", nothing);
    VSMap *filtered = api->invoke(vsr, "BasicVSR", clip);
    printf("%s\n", api->mapGetError(filtered));
    VSMap *maps[] = {nothing, version, clip, filtered};
    for (int i = 0; i < 4; i++) api->freeMap(maps[i]);
    api->freeCore(core);
    return 0;
}
"""


def test_a_host_without_python(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler here to build a host without Python")
    source, host = tmp_path / "host.c", tmp_path / "host"
    source.write_text(HOST)
    include = f"-I{vs.get_include()}"
    subprocess.run([compiler, "-std=gnu11", include, source, "-o", host, "-ldl"], check=True)
    (library,) = Path(vs.__file__).parent.glob("libvapoursynth.*")
    done = subprocess.run([host, library], capture_output=True, text=True, timeout=60)
    abi, error = done.stdout.splitlines()
    assert int(abi) == bridge.ABI
    assert error.startswith("BasicVSR: the plugin cannot import the Python package vs_vsr: ")
    assert "this process runs no Python. Run the script in a Python where vs-vsr" in error
    assert done.returncode == 0


def test_a_script_need_not_import_the_package() -> None:
    done = python(
        "import sys\n"
        "before = 'vs_vsr.plugin.bridge' in sys.modules\n"
        "clip = core.std.BlankClip(format=vs.RGBS, width=8, height=8, length=9)\n"
        "frame = core.vsr.BasicVSR(clip).get_frame(8)\n"
        "print(before, frame.width, frame.height)\n"
    )
    # Nothing else is on standard output, and nothing on standard error.
    assert (done.stdout, done.stderr) == ("False 32 32\n", "")


def test_without_the_package() -> None:
    done = python("import sys; sys.modules['vs_vsr'] = None\n" + CREATE + CREATE)
    first, second = done.stdout.splitlines()
    assert first.startswith("BasicVSR: the plugin cannot import the Python package vs_vsr: ")
    assert first == second


def test_a_package_of_another_version() -> None:
    done = python("from vs_vsr.plugin import bridge; bridge.ABI = 99\n" + CREATE)
    assert done.stdout == (
        f"bridge: the compiled plugin has ABI {bridge.ABI}, and this package needs 99. "
        "Reinstall vs-vsr.\n"
    )


def test_a_package_that_is_upgraded_while_the_process_runs() -> None:
    done = python(
        "clip = core.std.BlankClip(format=vs.RGBS, width=8, height=8)\n"
        "out = core.vsr.BasicVSR(clip)\n"
        "from vs_vsr.plugin import bridge; bridge.ABI = 99\n"
        + CREATE
        + "print(out.get_frame(0).width)\n"
    )
    assert done.stdout == (
        f"bridge: the compiled plugin has ABI {bridge.ABI}, and this package needs 99. "
        "Reinstall vs-vsr.\n32\n"
    )


def test_a_plugin_of_another_version() -> None:
    asked: list[int] = []
    kind: Any = dict(bridge._Exports._fields_)["set_callbacks"]

    def set_callbacks(callbacks: int) -> int:
        asked.append(callbacks)
        return 0

    exports = bridge._Exports(99, kind(set_callbacks))
    message = (
        rf"^bridge: the compiled plugin has ABI 99, and this package needs {bridge.ABI}\. Rein"
    )
    with pytest.raises(BridgeError, match=message):
        bridge.attach(ctypes.addressof(exports))
    # In a struct of another version nothing but its number may be used.
    assert not asked


def test_the_structs_are_those_of_the_header(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler here to ask for the sizes")
    pairs = {
        "VsrArgument": bridge._Argument,
        "VsrClip": bridge._Clip,
        "VsrSpec": bridge._Spec,
        "VsrFrame": bridge._Frame,
        "VsrStep": bridge._Step,
        "VsrJob": bridge._Job,
        "VsrCallbacks": bridge._Callbacks,
        "VsrExports": bridge._Exports,
        "VsrGpuDevice": GpuDeviceStruct,
        "VsrGpuFrame": GpuFrameStruct,
    }
    names = {"inputs": "in", "outputs": "out", "gpu_outputs": "gpu_out"}
    lines = []
    for struct, mirror in pairs.items():
        lines.append(f'printf("%zu\\n", sizeof({struct}));')
        fields = (names.get(field[0], field[0]) for field in mirror._fields_)
        lines += [f'printf("%zu\\n", offsetof({struct}, {field}));' for field in fields]
    source, program = tmp_path / "sizes.c", tmp_path / "sizes"
    source.write_text(
        '#include "abi.h"\n#include <stddef.h>\n#include <stdio.h>\nint main(void) {\n'
        + "\n".join(lines)
        + "\n}\n"
    )
    native = Path(__file__).resolve().parents[2] / "native"
    subprocess.run([compiler, "-std=gnu11", f"-I{native}", source, "-o", program], check=True)
    got = subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()
    want = []
    for mirror in pairs.values():
        want.append(ctypes.sizeof(mirror))
        want += [getattr(mirror, field[0]).offset for field in mirror._fields_]
    assert [int(size) for size in got] == want
