# nginx-llm: `make help` lists what there is.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c

# Debian keeps nginx in /usr/sbin, which is not on everybody's PATH
export PATH := $(PATH):/usr/sbin:/sbin

NGINX     ?= nginx
NGINX_SRC ?= /usr/share/nginx/src
JOBS      ?= $(shell nproc)
TIME      ?= 10
BINDIR    ?= /usr/local/bin
MANDIR    ?= $(BINDIR:%/bin=%)/share/man

CFLAGS   ?= -O2 -g -fstack-protector-strong -Wformat -Werror=format-security
CPPFLAGS ?= -Wdate-time -D_FORTIFY_SOURCE=2
LDFLAGS  ?= -Wl,-z,relro -Wl,-z,now

MODULE := ngx_http_llm_module.so
CORE   := $(sort $(wildcard src/core/*.c))

# BUILD=sanitize: nginx's tests, with an nginx that has sanitizers
CHECKED_NGINX := build/nginx-checked

ifeq ($(BUILD),sanitize)
    export LLM_SANITIZE := 1
    export LLM_NGINX    := $(CURDIR)/$(CHECKED_NGINX)/nginx
    export LLM_MODULE   := $(CURDIR)/$(CHECKED_NGINX)/$(MODULE)

    TESTED := $(CHECKED_NGINX)/$(MODULE)
    PARTS  := perl
else
    TESTED := build/$(MODULE)
    PARTS  := all unit check perl valgrind clients fuzz package-test
endif

, := ,
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all run start reload break heal install clean help \
        test unit check format fuzz replay coverage perl valgrind converse \
        strangers soak clients bench faults foreign screenshots \
        deb deps deps-test deps-bench \
        deps-deb deps-package package-test package-life requirements FORCE

# for recipes that have something to complain about
fail = fail() { echo "make: $$*" >&2; exit 1; }
again = $(MAKE) --no-print-directory


##@ Use

all: build/$(MODULE) ## build the module

run: deps ## start the gateway on http://127.0.0.1:8080
	@$(again) all
	@$(again) start

break: ## let a stand-in provider fail: PROVIDER=openai
	@$(find_stand_in); touch build/run/broken/$(PROVIDER)
	@echo '$(PROVIDER) answers 503 from now on'

heal: ## let it answer again: PROVIDER=openai
	@$(find_stand_in); rm -f build/run/broken/$(PROVIDER)
	@echo '$(PROVIDER) answers again'

reload: ## let the running gateway read its configuration again
	@$(running); kill -HUP $$pid
	@echo 'told it to; a mistake is told where make run runs'

install: build/$(MODULE) ## put the module where nginx loads it, and llmctl (DESTDIR=)
	@$(fail); dir=$$($(NGINX) -V 2>&1 | grep -o 'modules-path=[^ ]*') || \
	    fail 'no nginx to install for: apt-get install nginx'; \
	dir='$(DESTDIR)'$${dir#*=}; \
	install -d "$$dir"; \
	install -m 644 build/$(MODULE) "$$dir/.$(MODULE).new"; \
	mv -f "$$dir/.$(MODULE).new" "$$dir/$(MODULE)"; \
	echo "$$dir/$(MODULE)"
	@install -D -m 755 bin/llmctl '$(DESTDIR)$(BINDIR)/llmctl'
	@echo '$(DESTDIR)$(BINDIR)/llmctl'
	@install -D -m 644 bin/llmctl.1 '$(DESTDIR)$(MANDIR)/man1/llmctl.1'

deb: deps-deb ## build the package for Debian, in build/deb
	@rm -rf build/deb
	@mkdir -p build/deb/source
	@tar -c --exclude=./build --exclude=./.git --exclude=node_modules . | \
	    tar -x -C build/deb/source
	@$(call build_package,build/deb)
	@ls build/deb/libnginx-mod-http-llm_*.deb



##@ Work

test: deps-test ## everything below, the quickest first; or BUILD=sanitize
	@for part in $(PARTS); do \
	    SECONDS=0; $(again) $$part; echo "== $$part: $$SECONDS s"; \
	done
	@echo 'all tests passed'

unit: ## the core's tests, plain and with the sanitizers
	@$(again) -j$(JOBS) $(UNIT) $(SANITIZE)
	@failed=; for test in $(UNIT) $(SANITIZE); do \
	    echo "== $$test"; $$test || failed="$$failed $$test"; \
	done; $(fail); test -z "$$failed" || fail "failed:$$failed"

check: ## the look of the C sources, and what analyzers say
	@echo '== clang-format'
	@ugly=; for file in $(PLAIN_C); do \
	    clang-format --dry-run -Werror $$file 2> /dev/null || \
	        ugly="$$ugly $$file"; \
	done; $(fail); test -z "$$ugly" || fail "make format would change:$$ugly"
	@echo '== gcc -fanalyzer, clang-tidy'
	@$(again) -s -j$(JOBS) $(ANALYZED)
	@echo '== cppcheck'
	@cppcheck --quiet --error-exitcode=1 --std=c11 -j$(JOBS) \
	    --enable=warning,performance,portability --inline-suppr \
	    --suppress=missingIncludeSystem -Isrc -Isrc/core src

format: ## give the plain C its look
	@clang-format -i $(PLAIN_C)

perl: $(TESTED) ## nginx with the module, driven by Perl
	prove -j$(JOBS) -r t

valgrind: build/$(MODULE) ## the life of a gateway, and all endings, under memcheck
	LLM_VALGRIND=1 prove -j$(JOBS) t/valgrind

converse: build/$(MODULE) ## conversations by chance for TIME=10 seconds, or SEED= again
	@SEED='$(SEED)' TIME='$(TIME)' CALLS='$(CALLS)' t/chaos/converse

strangers: build/$(MODULE) ## what nobody asked for in this way, for TIME=10 seconds, or SEED= again
	@SEED='$(SEED)' TIME='$(TIME)' t/chaos/strangers

soak: build/$(MODULE) ## everything that may happen to a gateway, for TIME=600 seconds
	@SEED='$(SEED)' TIME='$(if $(filter file,$(origin TIME)),600,$(TIME))' \
	    t/chaos/soak

clients: build/$(MODULE) ## the official clients, and the dashboard in a browser
	@test ! -e t/clients/package.json || $(again) client-tests

fuzz: ## random input for the core, TIME=10 seconds for each target
	@$(if $(LIBFUZZER),:,echo 'fuzz: no libFuzzer, the corpus alone'; \
	    $(again) replay; exit 0); \
	$(again) -j$(JOBS) $(FUZZ); \
	$(fail); for target in $(FUZZ); do \
	    name=$$(basename $$target _fuzz); log=build/fuzz/$$name.log; \
	    mkdir -p build/fuzz/corpus/$$name t/fuzz/corpus/$$name; \
	    $$target -max_total_time=$(TIME) -print_final_stats=1 \
	        $$(ls t/fuzz/dict/$$name.dict 2> /dev/null | sed s/^/-dict=/) \
	        -artifact_prefix=build/fuzz/ -close_fd_mask=1 \
	        build/fuzz/corpus/$$name t/fuzz/corpus/$$name > $$log 2>&1 || \
	        { tail -n 60 $$log >&2; fail "$$target failed, see $$log"; }; \
	    echo "$$target: $$(sed -n 's/.*executed_units: *//p' $$log) inputs"; \
	done

replay: ## the fuzzers' corpus alone, with gcc's sanitizers
	@$(again) -j$(JOBS) $(REPLAY)
	@for target in $(REPLAY); do \
	    $$target t/fuzz/corpus/$$(basename $$target _fuzz); \
	done

coverage: ## which lines of the parsers the fuzzers' corpus reaches
	@$(again) -j$(JOBS) $(COVERAGE)
	@$(foreach target,$(COVERAGE),LLVM_PROFILE_FILE=$(target).raw $(target) \
	    t/fuzz/corpus/$(notdir $(target:_fuzz=)) > /dev/null;)
	@llvm-profdata merge -o build/coverage/all $(COVERAGE:=.raw)
	@llvm-cov report -instr-profile build/coverage/all \
	    $(firstword $(COVERAGE)) $(COVERAGE:%=-object %) $(CORE) | awk '/\.c/ && $$10 != "0.00%" \
	    { printf "%-28s %6s lines, %5s missed, %s\n", $$1, $$8, $$9, $$10 }'

bench: deps-bench ## measure, against stock nginx where there is one
	@$(again) all
	@$(again) -j$(JOBS) $(BENCH)
	@test ! -x t/bench/run || t/bench/run

package-test: ## the package, from its installation to its purge
	@$(if $(SUDO),echo 'package-test: skipped$(,) it needs root',\
	    $(again) package-life)

foreign: build/$(MODULE) ## nginx's own tests over llm_observe: SUITE=DIR (FILES=)
	@set -f; JOBS=$(JOBS) t/foreign/run '$(SUITE)' $(FILES)

faults: build/$(MODULE) ## write docs/faults.md: what is seen when a provider fails
	@t/faults/run

screenshots: build/$(MODULE) t/clients/node_modules/.package-lock.json ## take the pictures of the dashboard in docs/
	@$(call install_packages,chromium faketime)
	@node t/clients/screenshots.mjs docs

clean: ## remove everything that was built
	@rm -rf build

help: ## this list
	@sed -n -e 's/^##@ \(.*\)/\n\1/p' \
	    -e 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' \
	    $(firstword $(MAKEFILE_LIST)) | expand -t 22


## The module

# nginx's configure runs again when this changes: the nginx it is for, the
# flags, or which files there are
inputs = $(NGINX_SRC) $(shell stat -c %z $(NGINX_SRC)/src/core/nginx.h) \
         $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) \
         $(sort $(wildcard src/*.[chS] src/core/*.[ch] src/dashboard/*))

requirements:
	@$(fail); \
	test -e $(NGINX_SRC)/conf_flags || \
	    fail 'no nginx to build for: make deps, or apt-get install nginx-dev'; \
	for tool in $(CC) pkg-config; do \
	    command -v $$tool > /dev/null || \
	        fail "no $$tool: make deps, or apt-get install $$tool"; \
	done; \
	pkg-config --exists jansson || \
	    fail 'no jansson: make deps, or apt-get install libjansson-dev'; \
	pkg-config --exists libcurl || \
	    fail 'no libcurl: make deps,' \
	        'or apt-get install libcurl4-openssl-dev'; \
	dev=$$(sed -n 's/^#define NGINX_VERSION *"\(.*\)"/\1/p' \
	    $(NGINX_SRC)/src/core/nginx.h); \
	nginx=$$($(NGINX) -v 2>&1 | sed -n 's,.*nginx/\([0-9.]*\).*,\1,p') || true; \
	test "$${nginx:-$$dev}" = "$$dev" || \
	    fail "nginx is $$nginx, but nginx-dev is for $$dev:" \
	        "install both from Debian: apt-get install nginx nginx-dev"

build/nginx/inputs: FORCE | requirements
	@mkdir -p $(@D)
	@echo '$(inputs)' | cmp -s - $@ || echo '$(inputs)' > $@

# nginx adds -W -Wall -Werror itself, once its tests for features are over
cc_opt = $(CPPFLAGS) $(CFLAGS) -std=gnu11 -fPIC -ffile-prefix-map=$(CURDIR)=.
ld_opt = $(LDFLAGS) -Wl,--as-needed -fPIC

build/nginx/Makefile: config build/nginx/inputs
	@echo 'configure'
	@cd $(NGINX_SRC) && . ./conf_flags && ./configure \
	    --with-cc-opt='$(cc_opt)' --with-ld-opt='$(ld_opt)' \
	    "$${NGX_CONF_FLAGS[@]}" \
	    --builddir=$(CURDIR)/build/nginx --add-dynamic-module=$(CURDIR) \
	    > $(CURDIR)/build/nginx/configure.log 2>&1 || \
	    { tail -n 3 $(CURDIR)/build/nginx/configure.log >&2; exit 1; }

build/nginx/$(MODULE): build/nginx/Makefile FORCE
	@$(MAKE) --no-print-directory -s -C $(NGINX_SRC) \
	    -f $(CURDIR)/build/nginx/Makefile modules

build/$(MODULE): build/nginx/$(MODULE)
	@cp $< $@.new && mv -f $@.new $@
	@echo '$@'


## What analyzers say of each source

ANALYZED := $(patsubst src/%.c,build/analyze/%.ok,$(CORE) $(wildcard src/*.c))

nginx_includes = $(addprefix -isystem $(NGINX_SRC)/src/,\
    core event event/modules os/unix http http/modules http/v2) \
    -Ibuild/nginx -Isrc -Isrc/core

# nginx's hooks have parameters that not everybody needs
build/analyze/%.ok: src/%.c .clang-tidy | build/nginx/Makefile
	@mkdir -p $(@D)
	@$(CC) $(WARNINGS) -Wno-unused-parameter -g -O2 -fanalyzer -MMD -MP \
	    -MT $@ -MF $(@:.ok=.d) $(nginx_includes) -c -o $(@:.ok=.o) $<
	@clang-tidy --quiet $< -- -std=gnu11 -D_GNU_SOURCE= \
	    $(nginx_includes) 2> $(@:.ok=.log) || { cat $(@:.ok=.log); exit 1; }
	@touch $@


## The module in an nginx with sanitizers

# Debian's nginx once more, from its source, with every allocation on its own.
# A mirror may have dropped the source of this very version: its neighbour does.
# An empty string of nginx has no address, and nothing is copied from there;
# nginx is not to read numbers wherever they are, as it else does on amd64; and
# it shifts the first byte of an address into the sign.
checked_opt = -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined \
              -fno-sanitize=nonnull-attribute,shift-base
checked_cc  = -std=gnu11 -fPIC -DNGX_DEBUG_PALLOC=1 -DNGX_HAVE_NONALIGNED=0 \
              $(checked_opt)

$(CHECKED_NGINX)/source: | requirements
	@echo "nginx's source"
	@rm -rf $@.new
	@mkdir -p $@.new/lists/partial $@.new/archives/partial
	@apt-get indextargets --format \
	    'deb-src $$(REPO_URI) $$(RELEASE) $$(COMPONENT)' \
	    'Created-By: Packages' 'Origin: Debian' | sort -u \
	    > $@.new/sources.list
	@$(fail); cd $@.new; \
	options="-qq -o APT::Sandbox::User= -o Dir::Cache=$$PWD \
	    -o Dir::State::Lists=$$PWD/lists -o Dir::Etc::SourceParts=/dev/null \
	    -o Dir::Etc::SourceList=$$PWD/sources.list"; \
	apt-get $$options update; \
	for version in \
	    $$(dpkg-query -W -f '$${source:Version}' nginx-dev) \
	    $$(apt-cache $$options showsrc nginx | sed -n 's/^Version: //p'); \
	do \
	    ! apt-get $$options source nginx=$$version >> log 2>&1 || break; \
	done; \
	test -d nginx-*/ || { cat log >&2; fail 'no source of nginx'; }; \
	mv nginx-*/ nginx
	@mv $@.new $@

$(CHECKED_NGINX)/Makefile: config build/nginx/inputs | $(CHECKED_NGINX)/source
	@echo 'configure'
	@. $(NGINX_SRC)/conf_flags && cd $(CHECKED_NGINX)/source/nginx && \
	    ./configure "$${NGX_CONF_FLAGS[@]}" --with-debug \
	    --with-cc-opt='$(checked_cc)' \
	    --with-ld-opt='$(checked_opt)' \
	    --builddir=$(CURDIR)/$(@D) --add-dynamic-module=$(CURDIR) \
	    > $(CURDIR)/$(@D)/configure.log 2>&1 || \
	    { tail -n 3 $(CURDIR)/$(@D)/configure.log >&2; exit 1; }

$(CHECKED_NGINX)/$(MODULE): $(CHECKED_NGINX)/Makefile FORCE
	@$(MAKE) --no-print-directory -s -C $(@D)/source/nginx \
	    -f $(CURDIR)/$(@D)/Makefile binary modules


## The package

build_package = $(fail); ( cd $(1)/source && dpkg-buildpackage \
    --build=binary --no-sign --jobs=$(JOBS) ) > $(1)/log 2>&1 || \
    { tail -n 30 $(1)/log >&2; fail 'see $(1)/log'; }

# with an upgrade, so there are two of it
package-life: deb deps-package build/debian.tar
	@rm -rf build/deb-next
	@mkdir -p build/deb-next
	@cp -r build/deb/source build/deb-next
	@sed -i 's/^\(#define NGX_HTTP_LLM_VERSION .*\)"/\1+next"/' \
	    build/deb-next/source/src/ngx_http_llm.h
	@sed -i '1s/)/+next)/' build/deb-next/source/debian/changelog
	@$(call build_package,build/deb-next)
	@prove t/package/run :: build/debian.tar build/deb/*.changes \
	    build/deb-next/*.changes

# a Debian to install it into, from where this one is from
build/debian.tar:
	@mkdir -p $(@D)
	@apt-get indextargets --format \
	    'deb $$(REPO_URI) $$(RELEASE) $$(COMPONENT)' \
	    'Created-By: Packages' 'Origin: Debian' | sort -u | \
	    mmdebstrap --quiet --variant=minbase \
	    --include='nginx ca-certificates curl jq libjansson4 libcurl4' \
	    bookworm $@ -


## A gateway to try

# build/run is nginx's prefix.  Files are linked, so an edit and `make reload`
# are enough.
start:
	@$(fail); for address in $$(sed -n 's/^ *listen *\(.*\);/\1/p' \
	    examples/quickstart.conf $(if $(REAL),,$(STAND_INS))); do \
	    ! (exec 3<> /dev/tcp/$${address/:/\/}) 2> /dev/null || \
	        fail "$$address is taken: stop what listens there, or change" \
	            "its 'listen' under examples/"; \
	done
	@rm -rf build/run
	@mkdir -p build/run/broken build/run/logs build/run/temp
	@ln -s .. build/run/modules
	@ln -s ../../examples/quickstart.conf build/run/nginx.conf
	@ln -s ../../examples/quickstart build/run/quickstart
	@printf '%s\n' $(providers_conf) > build/run/providers.conf
	@$(NGINX) -p build/run -c nginx.conf -g '$(globals)' -t -q
	@echo
	@echo '  nginx with $(if $(REAL),$(REAL),three stand-in providers):' \
	    'http://127.0.0.1:8080/v1'
	@echo
	@echo '  try     curl http://127.0.0.1:8080/v1/chat/completions --json' \
	    \''{"model": "gpt-4.1-mini", "messages":' \
	    '[{"role": "user", "content": "Hello"}]}'\'
	@echo '  status  http://127.0.0.1:8080/status, or bin/llmctl status'
	@echo '  operate bin/llmctl help'
	$(if $(REAL),,@echo '  break   make break PROVIDER=openai')
	$(if $(REAL),,@echo '  heal    make heal PROVIDER=openai')
	@echo '  log     build/run/logs/access.log'
	@echo '  stop    Ctrl-C'
	@echo
	@exec $(NGINX) -p build/run -c nginx.conf -g '$(globals) daemon off;'

# root's workers would become nobody, who may not enter everybody's checkout
globals := $(if $(filter 0,$(shell id -u)),user root;)

# the providers whose key is set
REAL := $(strip $(if $(value OPENAI_API_KEY),openai) \
                $(if $(value ANTHROPIC_API_KEY),anthropic) \
                $(if $(value GEMINI_API_KEY),gemini) \
                $(if $(value DEEPSEEK_API_KEY),deepseek))

STAND_INS := examples/quickstart/stand-in-servers.conf

providers_conf = $(if $(REAL),\
    $(REAL:%='include quickstart/%.conf;') \
    'upstream llm {' $(REAL:%='    llm_use %;') '    keepalive 64;' '}',\
    'include quickstart/stand-ins.conf;')

running = $(fail); pid=$$(cat build/run/nginx.pid 2> /dev/null) && \
    test -d /proc/$$pid || fail 'nothing is running: make run'

find_stand_in = $(running); \
    grep -q stand-ins build/run/providers.conf || \
        fail 'real providers are running: make run without their keys' \
            'has stand-ins to break'; \
    known=$$(sed -n 's/^llm_provider \(.*\) {/\1/p' \
        examples/quickstart/stand-ins.conf); \
    grep -qx -- '$(PROVIDER)' <<< "$$known" || \
        fail "$@ which one? PROVIDER= one of" $$known


## The core's programs: tests, fuzzers, benchmarks

programs = $(patsubst t/$(1)/%.c,build/$(2)/%,$(sort $(wildcard t/$(1)/*_$(3).c)))

UNIT     := $(call programs,unit,unit,test)
SANITIZE := $(call programs,unit,sanitize,test)
FUZZ     := $(call programs,fuzz,fuzz,fuzz)
REPLAY   := $(call programs,fuzz,replay,fuzz)
COVERAGE := $(call programs,fuzz,coverage,fuzz)
BENCH    := $(call programs,bench,bench,bench)

PLAIN_C := $(sort $(wildcard $(addsuffix /*.[ch],\
               src/core t/unit t/bench t/fuzz t/memory)))

LIBFUZZER := $(wildcard $(shell clang -print-runtime-dir \
                 2> /dev/null)/libclang_rt.fuzzer-*.a)

# _GNU_SOURCE: as nginx has it on Linux
WARNINGS := -std=gnu11 -D_GNU_SOURCE= -Wall -Wextra -Werror
CHECKED  := -g -O1 -fno-omit-frame-pointer -fno-sanitize-recover=all

# flavour: folder under build/, folder under t/, command, libraries
define flavour
build/$(1)/core/%.o: src/core/%.c
	@mkdir -p $$(@D)
	@$(3) $(WARNINGS) -MMD -MP -c -o $$@ $$<

build/$(1)/%: t/$(2)/%.c $(CORE:src/%.c=build/$(1)/%.o)
	@mkdir -p $$(@D)
	@$(3) $(WARNINGS) -MMD -MP -MF $$@.d -Isrc/core -o $$@ \
	    $$(filter %.c %.o,$$^) $(4)
endef

$(eval $(call flavour,unit,unit,$(CC) -g -O2,-lcmocka -ljansson -pthread))
$(eval $(call flavour,sanitize,unit,\
    $(CC) -fsanitize=address$(,)undefined $(CHECKED),-lcmocka -ljansson -pthread))
# each check of a pointer would be a comparison for libFuzzer to look at, and
# most of the time; replay has them
$(eval $(call flavour,fuzz,fuzz,\
    clang -fsanitize=fuzzer-no-link$(,)address$(,)undefined \
    -fno-sanitize=null$(,)alignment $(CHECKED),\
    -fsanitize=fuzzer -ljansson))
$(eval $(call flavour,replay,fuzz,\
    $(CC) -fsanitize=address$(,)undefined $(CHECKED),-ljansson))
$(eval $(call flavour,coverage,fuzz,\
    clang -fprofile-instr-generate -fcoverage-mapping -g -O1,-ljansson))
$(eval $(call flavour,bench,bench,$(CC) -g -O2,-ljansson -pthread))

$(REPLAY) $(COVERAGE): t/fuzz/replay.c

-include $(wildcard build/*/*.d build/*/core/*.d)

client-tests: t/clients/node_modules/.package-lock.json
	@cd t/clients && npm test

t/clients/node_modules/.package-lock.json: t/clients/package-lock.json
	@cd t/clients && npm ci --silent --no-audit --no-fund
	@touch $@


## What Debian has to install

DEPS := nginx nginx-dev gcc libc6-dev make pkg-config libjansson-dev \
        libcurl4-openssl-dev ca-certificates curl jq

DEPS_TEST := libcmocka-dev perl libio-socket-ssl-perl libjson-perl openssl \
             clang libclang-rt-14-dev clang-format clang-tidy cppcheck \
             valgrind strace procps prometheus chromium faketime

DEPS_BENCH := wrk valgrind

DEPS_DEB := build-essential debhelper

DEPS_PACKAGE := lintian mmdebstrap perl libio-socket-ssl-perl libjson-perl

# any node from 18 on will do, wherever it is from
DEPS_TEST += $(shell npm --version > /dev/null 2>&1 && node -e \
                 'process.exit(+(parseInt(process.version.slice(1)) < 18))' \
                 2> /dev/null || echo nodejs npm)

deps:
	@$(call install_packages,$(DEPS))

deps-test: deps
	@$(call install_packages,$(DEPS_TEST))

deps-bench: deps
	@$(call install_packages,$(DEPS_BENCH))

deps-deb: deps
	@$(call install_packages,$(DEPS_DEB))

deps-package: deps-deb
	@$(call install_packages,$(DEPS_PACKAGE))

SUDO := $(if $(filter-out 0,$(shell id -u)),sudo)

install_packages = $(fail); missing=; for package in $(1); do \
    test "$$(dpkg-query -W -f '$${db:Status-Status}' $$package 2> /dev/null)" \
        = installed || missing="$$missing $$package"; \
    done; \
    test -n "$$missing" || exit 0; \
    test -z '$(SUDO)' || command -v sudo > /dev/null || \
        fail "missing, and there is no sudo: apt-get install$$missing"; \
    echo "install$$missing"; \
    $(SUDO) bash -c "$$apt_install" apt_install $$missing

# A fresh nginx would be started at once and take port 80: nobody asked for
# that, so a policy forbids it for the time being.
define apt_install
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d
log=$$(mktemp)
trap 'rm -f $$log' EXIT
trap 'exit 130' INT TERM HUP
if [ ! -e $$policy ]; then
    trap 'rm -f $$log $$policy' EXIT
    printf '#!/bin/sh\ncase $$1 in nginx*|prometheus*) exit 101; esac\n' > $$policy
    chmod 755 $$policy
fi
apt='apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120'
{ $$apt update && $$apt install -y --no-install-recommends "$$@"; } \
    < /dev/null > $$log 2>&1 || { cat $$log >&2; exit 1; }
endef
export apt_install
