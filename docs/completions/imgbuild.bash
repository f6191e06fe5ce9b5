# shellcheck shell=bash
# Completion of imgbuild for bash. tests/cli/help.bats holds it and --help together.

_imgbuild() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} verb='' word i
	local verbs='build lock key why inspect extract clone vendor ls show help'
	local options='--arch --cache --output --accel --as --mirror --blobs --offline --locked --check --update --allow-outside --json --quiet
		--verbose --no-color --help --version'
	COMPREPLY=()

	case $prev in
	--arch) mapfile -t COMPREPLY < <(compgen -W 'amd64 arm64' -- "$cur") ;;
	--accel) mapfile -t COMPREPLY < <(compgen -W 'auto kvm tcg' -- "$cur") ;;
	--as) mapfile -t COMPREPLY < <(compgen -W 'auto reflink copy qcow2' -- "$cur") ;;
	--mirror) mapfile -t COMPREPLY < <(compgen -W 'host' -- "$cur") ;;
	--cache | --blobs) mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
	-o | --output) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
	*) prev= ;;
	esac
	[ -z "$prev" ] || return 0

	for ((i = 1; i < COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		case " $verbs " in *" $word "*)
			verb=$word
			break
			;;
		esac
	done

	if [[ $cur == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
	else
		case $verb in
		'') mapfile -t COMPREPLY < <(compgen -W "$verbs" -- "$cur"; compgen -f -X '!*.toml' -- "$cur"; compgen -d -- "$cur") ;;
		build | lock | key | why | vendor) mapfile -t COMPREPLY < <(compgen -f -X '!*.toml' -- "$cur"; compgen -d -- "$cur") ;;
		clone | show) mapfile -t COMPREPLY < <(compgen -W "$(imgbuild ls --json 2>/dev/null |
			sed -n 's/.*"key": *"\([0-9a-f]*\)[^"]*".*/\1/p')" -- "$cur") ;;
		help) mapfile -t COMPREPLY < <(compgen -W "$verbs" -- "$cur") ;;
		ls) ;;
		*) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
		esac
	fi
}
complete -o filenames -F _imgbuild imgbuild
