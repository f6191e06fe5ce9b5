# imgbuild: one Makefile, out of tree. `make help` lists the targets.
#
# Objects lie in build/<mode>/obj; everything but the programs' main files goes into one archive, out of which the
# linker takes only what a program needs. That is how the front stays small: it is linked to two libraries, and a
# front that called into libcurl would not link.

MODE ?= debug
BUILD ?= build/$(MODE)
PREFIX ?= /usr/local
DESTDIR ?=
V ?=

CC ?= gcc
AR = gcc-ar
PKG_CONFIG ?= pkg-config
HOSTCC_ARM64 ?= aarch64-linux-gnu-gcc

WARNINGS = -Wall -Wextra -Wshadow -Wconversion -Wformat=2 -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wundef \
	-Wcast-align -Wnull-dereference -Wno-missing-field-initializers -fno-common
WERROR ?= -Werror
SANITIZE ?= $(if $(filter debug,$(MODE)),-fsanitize=address$(comma)undefined -fno-sanitize-recover=undefined)
comma = ,

CPPFLAGS_ALL = -I. -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 $(CPPFLAGS)
# gcc cannot know that a function which returns 0 has written its ret_*, and says so for every one that it inlines.
CFLAGS_MODE = $(if $(filter debug,$(MODE)),-Og -g,-O2 -g -D_FORTIFY_SOURCE=2 \
	$(if $(findstring clang,$(CC)),,-Wno-maybe-uninitialized))
CFLAGS_ALL = -std=gnu17 $(WARNINGS) $(WERROR) $(CFLAGS_MODE) $(SANITIZE) -fvisibility=hidden -fstack-protector-strong \
	-fPIE -pthread -ffunction-sections -fdata-sections $(CFLAGS)
LDFLAGS_ALL = $(SANITIZE) -pie -pthread -Wl,-z,relro,-z,now,--gc-sections,--as-needed $(LDFLAGS)

FRONT_PKGS = libcrypto jansson
ENGINE_PKGS = $(FRONT_PKGS) libarchive fdisk ext2fs e2p com_err libzstd libdeflate libcurl libsolv libkmod
PKG_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(ENGINE_PKGS) 2>/dev/null)
FRONT_LIBS := $(shell $(PKG_CONFIG) --libs $(FRONT_PKGS) 2>/dev/null)
ENGINE_LIBS := $(shell $(PKG_CONFIG) --libs $(ENGINE_PKGS) 2>/dev/null)

MAINS = builder/cli/front_main.c builder/cli/engine_main.c
LIB_SRCS := $(filter-out $(MAINS),$(wildcard lib/*.c plan/*.c cache/*.c kernels/*.c initrd/*.c builder/*.c builder/*/*.c))
LIB_OBJS = $(LIB_SRCS:%.c=$(BUILD)/obj/%.o)
INIT_SRCS := $(wildcard initrd/init/*.c)
INIT_HDRS := $(wildcard initrd/init/*.h initrd/*.h)

UNIT_SRCS := $(wildcard tests/unit/*.c)
UNIT_BINS = $(UNIT_SRCS:tests/unit/%.c=$(BUILD)/tests/%)
FUZZ_SRCS := $(wildcard tests/fuzz/fuzz_*.c)
FUZZ_NAMES = $(FUZZ_SRCS:tests/fuzz/fuzz_%.c=%)
FUZZ_REPLAYS = $(FUZZ_NAMES:%=$(BUILD)/tests/replay_%)
TOOL_SRCS := $(wildcard tests/tools/*.c)
TOOL_BINS = $(TOOL_SRCS:tests/tools/%.c=$(BUILD)/tests/%)

PROGRAMS = $(foreach m,$(MAINS),$(if $(wildcard $(m)),$(BUILD)/$(if $(findstring front,$(m)),imgbuild,imgbuild-engine)))

Q = $(if $(V),,@)
say = $(if $(V),,@printf '  %-7s %s\n' '$(1)' '$(2)')

.PHONY: all
all: $(PROGRAMS) $(TOOL_BINS) ## build build/debug/imgbuild with ASan and UBSan (the default)

.PHONY: release
release: ## build build/release/imgbuild, optimised
	+$(Q)$(MAKE) --no-print-directory MODE=release all

.PHONY: help
help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 20

$(BUILD)/obj/%.o: %.c
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(PKG_CFLAGS) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<

$(BUILD)/libimgbuild.a: $(LIB_OBJS) $(BUILD)/obj/initrd/init_blob.o
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(BUILD)/imgbuild: $(BUILD)/obj/builder/cli/front_main.o $(BUILD)/libimgbuild.a
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(FRONT_LIBS)

$(BUILD)/imgbuild-engine: $(BUILD)/obj/builder/cli/engine_main.o $(BUILD)/libimgbuild.a
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(ENGINE_LIBS)

# The guest's init: static, small, without sanitizers (it is process 1 of another machine). It is put into the engine
# as data. The one for the other architecture is built where a cross compiler is; without, it is empty, and the engine
# says so when it is needed.
INIT_FLAGS = -I. -D_GNU_SOURCE -std=gnu17 $(WARNINGS) $(WERROR) -Os -static -fno-pie -ffunction-sections \
	-Wl,--gc-sections,--build-id=none -s

$(BUILD)/init-amd64: CC_INIT = $(if $(filter aarch64,$(shell uname -m)),x86_64-linux-gnu-gcc,$(CC))
$(BUILD)/init-arm64: CC_INIT = $(if $(filter aarch64,$(shell uname -m)),$(CC),$(HOSTCC_ARM64))
$(BUILD)/init-amd64 $(BUILD)/init-arm64: $(INIT_SRCS) $(INIT_HDRS)
	$(call say,INIT,$@)
	@mkdir -p $(@D)
	$(Q)if command -v $(CC_INIT) >/dev/null; then $(CC_INIT) $(INIT_FLAGS) -o $@ $(INIT_SRCS); else : >$@; fi

$(BUILD)/obj/initrd/init_blob.o: initrd/init_blob.S $(BUILD)/init-amd64 $(BUILD)/init-arm64
	$(call say,AS,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) -DINIT_AMD64='"$(BUILD)/init-amd64"' -DINIT_ARM64='"$(BUILD)/init-arm64"' -c -o $@ $<

$(BUILD)/tests/%: tests/unit/%.c $(BUILD)/libimgbuild.a
	$(call say,TEST,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(PKG_CFLAGS) $(CFLAGS_ALL) -MMD -MP -o $@ $< $(LDFLAGS_ALL) $(BUILD)/libimgbuild.a \
		$(ENGINE_LIBS) -lcmocka

$(BUILD)/tests/%: tests/tools/%.c $(BUILD)/libimgbuild.a
	$(call say,TOOL,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(PKG_CFLAGS) $(CFLAGS_ALL) -MMD -MP -o $@ $< $(LDFLAGS_ALL) $(BUILD)/libimgbuild.a \
		$(ENGINE_LIBS)

# Only with clang and its coverage, as tests/fuzz/run calls it.
$(BUILD)/tests/fuzz_%: tests/fuzz/fuzz_%.c $(BUILD)/libimgbuild.a
	$(call say,FUZZ,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(PKG_CFLAGS) $(CFLAGS_ALL) -fsanitize=fuzzer -o $@ $< $(LDFLAGS_ALL) \
		$(BUILD)/libimgbuild.a $(ENGINE_LIBS)

$(BUILD)/tests/replay_%: tests/fuzz/fuzz_%.c tests/fuzz/replay.c $(BUILD)/libimgbuild.a
	$(call say,REPLAY,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(PKG_CFLAGS) $(CFLAGS_ALL) -o $@ $< tests/fuzz/replay.c $(LDFLAGS_ALL) \
		$(BUILD)/libimgbuild.a $(ENGINE_LIBS)

-include $(LIB_OBJS:.o=.d) $(wildcard $(BUILD)/obj/builder/cli/*_main.d $(BUILD)/tests/*.d)

# `make unit` runs all unit tests here; `make unit T=toml` one of them.
.PHONY: unit
unit: $(if $(T),$(BUILD)/tests/test_$(T),$(UNIT_BINS) $(TOOL_BINS)) ## run the unit tests, or one: make unit T=toml
	$(Q)set -e; for t in $(if $(T),$(BUILD)/tests/test_$(T),$(UNIT_BINS)); do echo "== $$t"; \
		IMGBUILD_TEST_DATA=$${IMGBUILD_TEST_DATA:-../shared/data} $$t; done

# What `make check` runs, all of it built. The tests themselves run as an ordinary user: tests/check sees to it.
.PHONY: tests
tests: all $(UNIT_BINS) $(TOOL_BINS) $(FUZZ_REPLAYS) ## build all test programs

.PHONY: deps deps-present
deps: ## install the Debian packages that everything here needs (apt-get, through sudo when not root)
	$(Q)tests/deps/install

deps-present:
	$(Q)tests/deps/install --check 2>/dev/null || tests/deps/install

# The parts: lint unit toml judge solver replay cli defects e2e. The tests want both programs in both modes: ASan's for correctness, the
# release for what the front is linked to.
.PHONY: check
check: deps-present ## everything that CI runs, as an unprivileged user; check-PART runs one of lint unit toml judge solver replay cli defects e2e
	+$(Q)$(MAKE) --no-print-directory tests
	+$(Q)$(MAKE) --no-print-directory MODE=release all
	$(Q)tests/check lint unit toml judge solver replay cli defects e2e

.PHONY: check-lint check-unit check-toml check-judge check-solver check-replay check-cli check-defects check-e2e lint fuzz-replay
lint: check-lint ## what the compiler does not check: include directions, libraries, symbols, contracts, shell
fuzz-replay: check-replay ## run every fuzz target over its corpus
check-lint check-unit check-toml check-judge check-solver check-replay check-cli check-defects check-e2e: check-%: deps-present
	+$(Q)$(MAKE) --no-print-directory $(if $(filter %-unit %-toml %-judge %-solver,$@),$(UNIT_BINS) $(TOOL_BINS)) \
		$(if $(filter %-replay,$@),$(FUZZ_REPLAYS)) $(if $(filter %-cli %-defects %-e2e %-lint,$@),all)
	+$(Q)$(if $(filter %-cli %-defects %-e2e %-lint,$@),$(MAKE) --no-print-directory MODE=release all,:)
	$(Q)tests/check $*

.PHONY: mutants
mutants: deps-present ## take each protection out, in a copy, and demand that its test notices: make mutants [M="NAME…"]
	+$(Q)$(MAKE) --no-print-directory all
	+$(Q)$(MAKE) --no-print-directory MODE=release all
	$(Q)tests/mutants/run $(M)

.PHONY: fuzz
fuzz: ## fuzz one target with libFuzzer: make fuzz M=toml SECS=60
	$(Q)tests/fuzz/run "$(M)" "$(or $(SECS),60)"

.PHONY: bless
bless: $(UNIT_BINS) ## rewrite the golden files from what the code gives now; read the difference before committing
	$(Q)set -e; for t in $(UNIT_BINS); do IMGBUILD_BLESS=1 IMGBUILD_TEST_DATA=$${IMGBUILD_TEST_DATA:-../shared/data} \
		$$t >/dev/null 2>&1 || true; done; git --no-pager diff --stat -- tests plan initrd builder

.PHONY: demo
demo: deps-present release ## build the embedded default, show the hit, boot the result to a login
	$(Q)tests/demo

.PHONY: bench
bench: deps-present release ## measure against qemu-img, cpio and the ancestor's pipeline, side by side
	$(Q)tests/bench/run $(BENCH)

.PHONY: testdata
testdata: ## fetch the public test data by digest, for checkouts without ../shared
	$(Q)tests/testdata/fetch

.PHONY: install
install: ## install the release build: make install PREFIX=/usr DESTDIR=…
	+$(Q)$(MAKE) --no-print-directory MODE=release all
	install -D -m 0755 build/release/imgbuild $(DESTDIR)$(PREFIX)/bin/imgbuild
	install -D -m 0755 build/release/imgbuild-engine $(DESTDIR)$(PREFIX)/libexec/imgbuild/imgbuild-engine
	install -D -m 0644 docs/imgbuild.1 $(DESTDIR)$(PREFIX)/share/man/man1/imgbuild.1
	install -D -m 0644 docs/completions/imgbuild.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/imgbuild
	install -d $(DESTDIR)$(PREFIX)/share/doc/imgbuild/recipes
	install -m 0644 README.md LICENSE $(DESTDIR)$(PREFIX)/share/doc/imgbuild/
	install -m 0644 recipes/*.toml $(DESTDIR)$(PREFIX)/share/doc/imgbuild/recipes/
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/doc/imgbuild/recipes/ci recipes/ci/github.yml

compile_commands.json: Makefile
	$(call say,GEN,$@)
	$(Q)printf '%s\n' $(LIB_SRCS) $(wildcard $(MAINS)) $(UNIT_SRCS) $(TOOL_SRCS) $(FUZZ_SRCS) $(INIT_SRCS) | \
		jq -Rn --arg dir "$(CURDIR)" --arg cc '$(CC) $(CPPFLAGS_ALL) $(PKG_CFLAGS) $(CFLAGS_ALL)' \
		'[inputs | {directory: $$dir, file: ., command: ($$cc + " -c " + .)}]' >$@

.PHONY: clean
clean: ## remove what was built
	rm -rf build compile_commands.json
