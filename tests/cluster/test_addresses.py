"""Addresses, and that credentials in them go nowhere."""

import pytest

from workflow_blocks.cluster.addresses import (
    AddressError,
    address_in,
    has_credentials,
    name_of,
    place_of,
    without_credentials,
    without_secrets,
)

WITH_CREDENTIALS = [
    ("s3://AKIAKEY:hidden1@bucket/a.jpg", "s3://bucket/a.jpg"),
    ("https://user:hidden1@host/a.jpg", "https://host/a.jpg"),
    ("https://hidden1@host/a.jpg", "https://host/a.jpg"),
    ("https://host/a.jpg?X-Amz-Signature=hidden1&X-Amz-Date=1", "https://host/a.jpg"),
    ("https://host/a.jpg?sv=1&sig=hidden1", "https://host/a.jpg"),
    ("s3://bucket/a.jpg?secret_key=hidden1", "s3://bucket/a.jpg"),
    ("s3://bucket/a.jpg?access_key=hidden1", "s3://bucket/a.jpg"),
    ("https://host/a.jpg?token=hidden1", "https://host/a.jpg"),
    ("abfs://box:hidden1@account/a.jpg", "abfs://account/a.jpg"),
    ("s3://KEY:hidden1/K7MD/bPx@bucket/photos", "s3://bucket/photos"),
    ("s3://KEY:wJ?x=/hidden1@bucket/photos", "s3://bucket/photos"),
    ("s3://KEY:12/hidden1@bucket/photos", "s3://bucket/photos"),
    ("s3://KEY%3Ahidden1/x@bucket/photos", "s3://bucket/photos"),
    ("https://user:hidden1@x/y@host/a.jpg", "https://host/a.jpg"),
    ("https://user:80hidden1/y@host/a.jpg", "https://host/a.jpg"),
    ("simplecache::s3://key:hidden1@b/k", "simplecache::s3://b/k"),
    ("filecache::https://host/k?token=hidden1", "filecache::https://host/k"),
    ("https://host/a.jpg;token=hidden1", "https://host/a.jpg"),
    ("https://host/a.jpg?v=1;token=hidden1", "https://host/a.jpg"),
    ("https://host/a.jpg#access_token=hidden1", "https://host/a.jpg"),
    *(
        (f"https://host/a.jpg?v=1&{name}=hidden1", "https://host/a.jpg")
        for name in ("auth", "jwt", "pwd", "access_token", "Authorization", "passwd", "t%6Fken", "accountKey")
    ),
]
WITHOUT = [
    "/data/user:name@host/a.jpg",
    "s3://bucket/with space and 100%.jpg",
    "s3://bucket/folder@2x/a.jpg",
    "s3://bucket/a.jpg?v=1",
    "s3://bucket/key=3/token=4/a.jpg",
    "s3://bucket/12:30/me@home.jpg",
    "https://host:8080/me@home/a.jpg",
    "https://[::1]:8080/me@home/a.jpg",
    "hdfs://name-node:8020/me@home/a.jpg",
    "https://host/a.jpg?author=me@home:1&monkey=1",
    "abfs://container@account.dfs.core.windows.net/a.jpg",
]


@pytest.mark.parametrize(("address", "shown"), WITH_CREDENTIALS)
def test_credentials_are_found_and_removed(address, shown):
    assert has_credentials(address)
    assert without_credentials(address) == shown
    for text in ("cannot open {} now", "'{}'", "url={},", '{{"url": "{}"}}', "open({!r}) <{}>", "a b\n{}\n"):
        assert "hidden1" not in without_secrets(text.format(address, address))
    with pytest.raises(AddressError) as error:
        place_of(address)
    assert "hidden1" not in str(error.value)


@pytest.mark.parametrize("address", WITHOUT)
def test_other_addresses_stay_as_they_are(address):
    assert not has_credentials(address)
    assert without_credentials(address) == address
    assert without_secrets(f"cannot open {address} now") == f"cannot open {address} now"


@pytest.mark.parametrize(
    "text",
    ["https://h/my file.jpg?sig=hidden1", "url: /x?a=1&sig=hidden1 (caused by b)", "it's.jpg?sig=hidden1"],
)
def test_signatures_are_removed_from_parts_of_addresses(text):
    assert without_secrets(text) == text.replace("hidden1", "***")


def test_credentials_of_the_environment_are_removed_from_errors(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden1hidden2hidden3")

    assert "hidden2" not in without_secrets("denied for hidden1hidden2hidden3")


@pytest.mark.parametrize("name", ["a b.jpg", "100%.jpg", "größe.jpg", "q?x=1.jpg", "#1.jpg"])
def test_a_local_file_is_found_again_by_its_address(tmp_path, name):
    file = tmp_path / name
    file.write_bytes(b"content")

    place = place_of(address_in(str(tmp_path), str(file)))

    assert place.path == str(file)
    assert place_of(str(file)).path == str(file)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("file:///a/my%20photo%20%C3%A9.jpg", "my photo é.jpg"),
        ("s3://bucket/a/100%25.jpg", "100%25.jpg"),
        ("/a/b.jpg", "b.jpg"),
    ],
)
def test_names_of_files(address, name):
    assert name_of(address) == name


def test_an_unknown_scheme_is_refused():
    with pytest.raises(AddressError, match="nonsense://"):
        place_of("nonsense://bucket/a.jpg")
