# What no fault may lead to, whatever the fault is; and docs/faults.md says
# what happens.

use strict;
use warnings;
use utf8;

use FindBin;
use lib "$FindBin::Bin/faults", "$FindBin::Bin/lib";

use Faults;
use List::Util qw(sum0);
use Page;
use Test::More;

binmode $_, ':utf8' for Test::More->builder->output,
    Test::More->builder->failure_output, Test::More->builder->todo_output;

my @parts;

for my $setting (Faults->settings) {
    my @seen = map { [ $_, Faults->run($_, $setting->{route}) ] }
        Faults->under($setting);
    push @parts, [ $setting, @seen ];

    for my $pair (@seen) {
        my ($fault, $seen) = @$pair;

        subtest "$setting->{name}: $fault->{name}" => sub {
            never_lies($_) for @{ $seen->{calls} };
            is_whole($fault, $_) for $setting->{is_saved}
                ? @{ $seen->{calls} } : ();
            is_the_same_request($seen);
            is_counted($seen, $_) for @{ $seen->{providers} };
            is_logged_once($seen);
        };
    }
}

is_deeply [ split /\n/, Page->read("$FindBin::Bin/../docs/faults.md") ],
    [ split /\n/, Page->text(@parts) ],
    'docs/faults.md tells what happens (else: make faults)';

done_testing();


# an answer looks complete if and only if it is, and is one provider's

sub never_lies {
    my $call = shift;

    my $by = $call->{provider};
    my $is_whole = $call->{tokens} == Faults::TOKENS && $call->{finished};

    is $call->{text}, join('', map { "$by-$_ " } 1 .. $call->{tokens}),
        'no token of another provider';
    ok !$call->{done} || $is_whole, '[DONE] is the end of a whole answer';
    ok !$call->{error} || !$call->{done}, 'no [DONE] behind an error';

    if ($call->{outcome} eq 'truncated') {
        ok $call->{error}, 'a break is told';
    } elsif ($call->{status} == 200) {
        ok $is_whole && $call->{complete} && !$call->{error}, 'it is whole';
    }
}


# the window is larger than the answers: nothing but the caller's own
# mistake is seen

sub is_whole {
    my ($fault, $call) = @_;

    my $expected = $fault->{is_callers} ? 400 : 200;
    is $call->{status}, $expected, "status $expected";
    isnt $call->{outcome}, 'truncated', 'not truncated';
}


sub is_the_same_request {
    my $seen = shift;

    my @other = grep { $_ ne $seen->{sent} }
        map { @{ $_->{bodies} } } @{ $seen->{providers} };
    is scalar @other, 0, 'every provider gets what the caller sent';
}


# a connection that it did not take is no request for the provider

sub is_counted {
    my ($seen, $provider) = @_;

    my $name = $provider->{name};
    my $refused = () = $seen->{log} =~ /llm: provider "$name": connection/g;

    my $verdicts = sum0 @{ $provider->{counts} }{
        qw(successful failed throttled neutral)
    };
    is $verdicts, @{ $provider->{requests} } + $refused,
        "$name: every request has its verdict";
}


sub is_logged_once {
    my $seen = shift;

    my @lines = $seen->{log} =~ /llm: provider "\w+": .* after \d+ms, /g;
    my $again = sum0 map { $_->{attempts} - 1 } @{ $seen->{calls} };
    is scalar @lines, $again, 'every attempt that failed has its line';
    unlike $seen->{log}, qr/\[(?:alert|emerg|crit)\]/, 'nothing alarming';
}
