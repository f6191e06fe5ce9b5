#!/usr/bin/env bats
# The document behind a key.

load ../helper

# A plan that needs no network: its base and kernel are files beside it.
local_plan() {
	mkdir -p "$1"
	echo base >"$1/base.img"
	echo kernel >"$1/vmlinuz"
	{
		printf 'name = "local"\n[base.amd64]\nurl = "base.img"\n[kernel.amd64]\nfile = "vmlinuz"\n'
		cat
	} >"$1/plan.toml"
}

@test "key --json is byte for byte what is hashed: sha256sum makes the key of it" {
	local_plan "$BATS_TEST_TMPDIR/p" <<-'END'
		[files."/etc/motd"]
		content = "\u20ac \u0001 \"quoted\"\n"
		[services]
		enable = ["b", "a"]
		[users.root]
		authorized_keys = ["ssh-ed25519 AAAA \u00e9 \U0001f600 \\ /"]
	END
	run_imgbuild key --arch amd64 "$BATS_TEST_TMPDIR/p/plan.toml"
	expect_status 0
	key=$stdout
	run_imgbuild key --arch amd64 --json "$BATS_TEST_TMPDIR/p/plan.toml"
	expect_status 0
	expect_equal "$(wc -l <"$BATS_TEST_TMPDIR/stdout")" 1
	jq -e .base.sha256 "$BATS_TEST_TMPDIR/stdout"
	epoch=$("$IMGBUILD" --version | sed 's/.*epoch //')
	expect_equal "$({ echo "imgbuild-epoch $epoch"; printf %s "$stdout"; } | sha256sum | cut -d' ' -f1)" "$key"
	# and it is what another program makes of the same value
	expect_equal "$(python3 -c 'import json, sys
print(json.dumps(json.load(sys.stdin), sort_keys=True, separators=(",", ":"), ensure_ascii=False))' <"$BATS_TEST_TMPDIR/stdout")" "$stdout"
}
