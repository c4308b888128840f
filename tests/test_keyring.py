from __future__ import annotations

import base64
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from lumbung.errors import ConfigurationError
from lumbung.keyring import Keyring

KEY_A, KEY_B = bytes(range(32)), bytes(range(32, 64))
LINE_A = f"00000000000000aa {base64.b64encode(KEY_A).decode()}\n"
LINE_B = f"00000000000000bb {base64.b64encode(KEY_B).decode()}\n"
RESTORE = "Put the key file back from its copy"
PURPOSE = "partner:B98KL87"


def key_file(tmp_path: Path, text: str, mode: int = 0o600) -> Path:
    path = tmp_path / "keys"
    path.write_text(text)
    path.chmod(mode)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        Keyring.load(path, create=True)
    return str(caught.value)


def test_what_was_encrypted_decrypts_and_is_never_the_same_twice(tmp_path: Path) -> None:
    keyring = Keyring.load(tmp_path / "keys", create=True)
    one, two = keyring.encrypt(b"secret", PURPOSE), keyring.encrypt(b"secret", PURPOSE)
    assert (keyring.decrypt(one, PURPOSE), keyring.decrypt(two, PURPOSE)) == (b"secret", b"secret")
    assert one != two
    assert b"secret" not in one


@given(plaintext=st.binary(max_size=200), purpose=st.text(st.characters(exclude_categories=["Cs"]), max_size=50))
def test_any_bytes_come_back_for_any_purpose(plaintext: bytes, purpose: str) -> None:
    keyring = Keyring(Path("unused"), {b"12345678": AESGCM(KEY_A)})
    assert keyring.decrypt(keyring.encrypt(plaintext, purpose), purpose) == plaintext


def test_a_blob_is_version_key_id_nonce_and_ciphertext(tmp_path: Path) -> None:
    keyring = Keyring.load(key_file(tmp_path, LINE_A), create=False)
    blob = keyring.encrypt(b"secret", PURPOSE)
    assert len(blob) == 1 + 8 + 12 + len(b"secret") + 16
    assert blob[:9] == b"\x01" + bytes.fromhex("00000000000000aa")
    assert AESGCM(KEY_A).decrypt(blob[9:21], blob[21:], blob[:9] + PURPOSE.encode()) == b"secret"


def test_a_blob_in_another_row_does_not_decrypt(tmp_path: Path) -> None:
    keyring = Keyring.load(tmp_path / "keys", create=True)
    blob = keyring.encrypt(b"secret", PURPOSE)
    with pytest.raises(
        ConfigurationError, match=r"^The secret of partner:OTHER was changed, or belongs to something else$"
    ):
        keyring.decrypt(blob, "partner:OTHER")


def test_every_changed_bit_and_every_cut_is_noticed(tmp_path: Path) -> None:
    keyring = Keyring.load(tmp_path / "keys", create=True)
    blob = keyring.encrypt(b"s", PURPOSE)
    for bit in range(len(blob) * 8):
        changed = bytearray(blob)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ConfigurationError):
            keyring.decrypt(bytes(changed), PURPOSE)
    for length in range(len(blob)):
        with pytest.raises(ConfigurationError):
            keyring.decrypt(blob[:length], PURPOSE)


def test_a_new_key_file_is_closed_to_others_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "new" / "keys"
    blob = Keyring.load(path, create=True).encrypt(b"secret", PURPOSE)
    text = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["keys"]
    assert Keyring.load(path, create=True).decrypt(blob, PURPOSE) == b"secret"
    assert path.read_text() == text


def test_processes_that_create_it_at_once_use_the_same_key(tmp_path: Path) -> None:
    program = "import sys; from pathlib import Path; from lumbung.keyring import Keyring; sys.stdin.readline()\n"
    program += "print(repr(Keyring.load(Path(sys.argv[1]), create=True)))"
    command = [sys.executable, "-c", program, str(tmp_path / "keys")]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        shown = list(pool.map(lambda process: process.communicate("go\n")[0], processes))
    assert len(set(shown)) == 1
    assert "keys=['" in shown[0]
    assert [file.name for file in tmp_path.iterdir()] == ["keys"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = key_file(tmp_path, LINE_A, mode)
    assert refusal(path) == f"Others may read the key file {path} (mode 0{mode:o}): run chmod 600 {path}"


def test_a_missing_file_is_not_created_unasked(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be used: No such file or directory"):
        Keyring.load(tmp_path / "keys", create=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "line",
    [
        "00000000000000aa",
        LINE_A.strip() + " more",
        LINE_A.replace("aa ", "zz "),
        LINE_A.replace("000000aa ", "aa "),
        LINE_A[:-6],
        LINE_A.replace("AAEC", "A?EC"),
        "é",
    ],
    ids=["no key", "three words", "id not hex", "short id", "short key", "not base64", "not a key"],
)
def test_a_corrupt_line_is_named_and_not_shown(tmp_path: Path, line: str) -> None:
    path = key_file(tmp_path, f"# mine\n{LINE_B}{line}\n")
    message = refusal(path)
    assert message == f"{path}, line 3: expected 16 hex digits, a space, and 32 bytes in base64. {RESTORE}"


def test_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = key_file(tmp_path, LINE_A + LINE_A)
    assert refusal(path) == f"{path}, line 2: key 00000000000000aa is there twice"


def test_a_file_without_a_key_is_refused(tmp_path: Path) -> None:
    path = key_file(tmp_path, "# nothing\n\n")
    assert refusal(path) == f"The key file {path} has no key in it: put it back from its copy"


def test_bytes_that_are_not_text_are_refused_and_a_comment_may_be_anything(tmp_path: Path) -> None:
    path = key_file(tmp_path, "")
    path.write_bytes(b"# \xff\n" + LINE_A.encode() + b"\xff\xfe\n")
    assert refusal(path) == f"{path}, line 3: expected 16 hex digits, a space, and 32 bytes in base64. {RESTORE}"


def test_the_first_key_encrypts_and_all_decrypt(tmp_path: Path) -> None:
    path = key_file(tmp_path, LINE_A)
    old = Keyring.load(path, create=False).encrypt(b"old", PURPOSE)
    path.write_text(f"{LINE_B}# until 2027\n{LINE_A.strip()}  # retire\n")
    keyring = Keyring.load(path, create=False)
    assert keyring.encrypt(b"new", PURPOSE)[1:9] == bytes.fromhex("00000000000000bb")
    assert keyring.decrypt(old, PURPOSE) == b"old"


def test_a_rotation_puts_a_new_key_first_and_keeps_the_rest_of_the_file(tmp_path: Path) -> None:
    path = key_file(tmp_path, f"# mine\n{LINE_A}")
    running = Keyring.load(path, create=False)
    old = running.encrypt(b"old", PURPOSE)
    rotated = Keyring.add_key(path)
    new = rotated.encrypt(b"new", PURPOSE)
    assert rotated.decrypt(old, PURPOSE) == b"old"
    assert new[1:9] != old[1:9]
    assert path.read_text().endswith(f"\n# mine\n{LINE_A}")
    assert path.read_text().count("\n") == 3
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["keys"]
    assert running.decrypt(new, PURPOSE) == b"new"


def test_a_rotation_waits_for_no_other_and_changes_nothing_then(tmp_path: Path) -> None:
    path = key_file(tmp_path, LINE_A)
    (tmp_path / "keys.new").write_text("another's")
    with pytest.raises(ConfigurationError, match=r"keys\.new exists: another process adds a key"):
        Keyring.add_key(path)
    assert path.read_text() == LINE_A
    assert (tmp_path / "keys.new").read_text() == "another's"


def test_a_corrupt_file_is_not_rotated(tmp_path: Path) -> None:
    path = key_file(tmp_path, "nonsense\n")
    with pytest.raises(ConfigurationError, match="line 1"):
        Keyring.add_key(path)
    assert path.read_text() == "nonsense\n"
    assert [file.name for file in tmp_path.iterdir()] == ["keys"]


def test_an_unknown_key_is_named_with_the_file(tmp_path: Path) -> None:
    path = key_file(tmp_path, LINE_A)
    blob = Keyring.load(path, create=False).encrypt(b"secret", PURPOSE)
    path.write_text(LINE_B)
    with pytest.raises(ConfigurationError) as caught:
        Keyring.load(path, create=False).decrypt(blob, PURPOSE)
    assert str(caught.value) == (
        f"The secret of {PURPOSE} is encrypted with key 00000000000000aa, which {path} does not have"
    )


def test_repr_shows_ids_and_no_key(tmp_path: Path) -> None:
    path = key_file(tmp_path, LINE_A + LINE_B)
    assert repr(Keyring.load(path, create=False)) == f"Keyring('{path}', keys=['00000000000000aa', '00000000000000bb'])"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    path = key_file(tmp_path, LINE_A, 0o000)
    assert refusal(path) == f"The key file {path} cannot be used: Permission denied"


@pytest.mark.parametrize("before", [b"\xef\xbb\xbf", b""])
@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_what_an_editor_makes_of_the_file_is_read(tmp_path: Path, before: bytes, end: bytes) -> None:
    path = key_file(tmp_path, LINE_A)
    blob = Keyring.load(path, create=False).encrypt(b"secret", PURPOSE)
    path.write_bytes(before + LINE_A.encode().strip() + end)
    assert Keyring.load(path, create=False).decrypt(blob, PURPOSE) == b"secret"
    assert Keyring.add_key(path).decrypt(blob, PURPOSE) == b"secret"
    assert b"\xef\xbb\xbf" not in path.read_bytes()


def test_a_file_that_is_expected_is_read_when_a_key_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    keyring = Keyring.expected(path)
    assert keyring.is_missing()
    with pytest.raises(ConfigurationError, match="keys cannot be used: No such file or directory"):
        keyring.encrypt(b"secret", PURPOSE)
    with pytest.raises(ConfigurationError, match="keys cannot be used: No such file or directory"):
        keyring.decrypt(b"\x01" + b"x" * 40, PURPOSE)
    assert list(tmp_path.iterdir()) == []
    blob = Keyring.load(path, create=True).encrypt(b"secret", PURPOSE)
    assert not keyring.is_missing()
    assert keyring.decrypt(blob, PURPOSE) == b"secret"
    assert keyring.decrypt(keyring.encrypt(b"more", PURPOSE), PURPOSE) == b"more"


def test_a_corrupt_file_is_refused_also_when_it_is_merely_expected(tmp_path: Path) -> None:
    path = key_file(tmp_path, "# nothing\n")
    with pytest.raises(ConfigurationError, match="has no key in it: put it back from its copy"):
        Keyring.expected(path)


def test_a_file_in_the_place_of_the_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("mine")
    with pytest.raises(ConfigurationError) as refused:
        Keyring.load(tmp_path / "data" / "keys", create=True)
    assert str(refused.value) == f"The directory {tmp_path}/data cannot be used: it is a file"
