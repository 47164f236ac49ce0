"""Files and hashes as DVC has them."""

from repro.repository import folder_md5


def test_folder_hash_is_that_of_dvc() -> None:
    # From dvc.lock, of a folder with a.txt ("a\n") and sub/b.txt ("b\n").
    files = [
        ("sub/b.txt", "3b5d5c3712955042212316173ccf37be"),
        ("a.txt", "60b725f10c9c85c70d97880dfe8191b3"),
    ]
    assert folder_md5(files) == "849835d274483dc683eb416d6e4f887d.dir"
