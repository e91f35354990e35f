#!/usr/bin/perl

# The package for Debian says what the project says elsewhere.  What it does
# when it is installed is for `make package-test`.

use strict;
use warnings;

use Test::More;


my ($version) = slurp('src/ngx_http_llm.h')
    =~ /^#define NGX_HTTP_LLM_VERSION +"(.+)"$/m;
my ($news, $unreleased) = slurp('CHANGELOG.md')
    =~ /^## (\S+)( \(unreleased\))?$/m;
my ($package, $packaged, $distribution) = slurp('debian/changelog')
    =~ /\A(\S+) \((\S+)\) (\S+);/;
my $control = slurp('debian/control');

is($news, $version, 'CHANGELOG.md begins with the version of the module');
is($packaged =~ s/-[^-]*\z//r, $version, 'the package is of this version');
is($distribution eq 'UNRELEASED', !!$unreleased,
    'and released when the version is');
is_deeply([$control =~ /^(?:Source|Package): (.*)$/mg], [$package, $package],
    'source and package are named as nginx modules are');

my ($needed) = $control =~ /^Build-Depends: ((?:.*\n(?= ))*.*)/m;
my ($deps) = slurp('Makefile') =~ /^DEPS := ((?:.*\\\n)*.*)$/m;
is_deeply([libraries($needed)], [libraries($deps)],
    'the package is built with the libraries that `make deps` installs');

my $license = slurp('LICENSE') =~ s/\A.*\n\n//r;
my ($packaged_license) = slurp('debian/copyright')
    =~ /^License: BSD-2-clause\n((?: .*\n)+)\z/m;
is($packaged_license =~ s/^ //mgr =~ s/^\.$//mgr, $license,
    'the license is the same, word for word');
my ($holder) = slurp('LICENSE') =~ /\ACopyright \(C\) (.*)/;
like(slurp('debian/copyright'), qr/^Copyright: \Q$holder\E$/m,
    'and so is its holder');

my $help = `bin/llmctl help`;
my $man = slurp('bin/llmctl.1') =~ s/\\-/-/gr
    =~ s/^\.SH SYNOPSIS.*?(?=^\.SH)//msr;
my @words = ($help =~ /^  llmctl (\w+)/mg, $help =~ /^  (--\w+)/mg);
is_deeply([sort $man =~ /^\.TP\n\.BI? (?!\d|[A-Z])([-\w]+)/mg], [sort @words],
    'the manual explains the words of llmctl, and no other');
done_testing();


sub libraries {
    my ($list) = @_;

    return sort grep { /-dev$/ && !/^(?:nginx|libc6)-dev$/ }
        split /[\s,\\]+/, $list;
}


sub slurp {
    my ($file) = @_;

    open my $fh, '<:raw', $file or die "$file: $!";
    local $/;
    return scalar <$fh>;
}
