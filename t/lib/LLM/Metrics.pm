package LLM::Metrics;

=head1 NAME

LLM::Metrics - the page for Prometheus, read strictly

=head1 SYNOPSIS

    use LLM::Metrics qw(differences parse value);

    my $metrics = parse($page);
    is value($metrics, 'llm_in_flight', provider => 'a'), 0;
    is_deeply [ differences($metrics, $gw->status) ], [];

=head1 FUNCTIONS

=over

=item parse(TEXT)

A strict reader of the text format 0.0.4.  It dies of what is not as it must
be, and returns { METRIC => { type, samples => [ [NAME, {LABEL => VALUE},
VALUE], ... ] } }.

=item value(METRICS, SERIES, LABEL => VALUE, ...)

The value of the one series with exactly these labels, or undef.

=item differences(METRICS, STATUS)

Where the page says another thing than the JSON, in words; and which series
it has that the JSON does not know.

=back

=cut

use strict;
use warnings;

use Exporter qw(import);

our @EXPORT_OK = qw(differences parse value);

my %FIELD = (
    success   => 'successful_calls',
    failure   => 'failed_calls',
    throttled => 'throttled_calls',
    neutral   => 'neutral_calls',
);


sub parse {
    my ($text) = @_;

    my (%metric, $name, %seen);
    die "no newline at the end\n" if $text !~ /\n\z/;

    for my $line (split /\n/, $text) {
        if ($line =~ /^# HELP (\w+) (\S.*)$/) {
            die "again: $line\n" if $metric{$1};
            $name = $1;
            $metric{$name} = { help => $2, samples => [] };
            next;
        }
        if ($line =~ /^# TYPE (\w+) (counter|gauge|histogram)$/) {
            die "not behind its help: $line\n"
                if $1 ne $name || $metric{$name}{type};
            $metric{$name}{type} = $2;
            next;
        }

        $line =~ /^([a-z_]+)(?:\{(.+)\})? ([-+.\de]+)$/
            or die "what? $line\n";
        my ($series, $rest, $value) = ($1, $2 // '', $3);
        my $base = $metric{$name}{type} eq 'histogram'
            ? $series =~ s/_(?:bucket|sum|count)$//r : $series;
        die "not of $name: $line\n" if $base ne $name;
        die "twice: $line\n" if $seen{"$series $rest"}++;

        my %label;
        while ($rest =~ /\G([a-z]+)="((?:[^\\"]|\\[\\"n])*)"(?:,|\z)/gc) {
            my ($key, $text) = ($1, $2);
            $label{$key} = $text =~ s/\\(.)/$1 eq 'n' ? "\n" : $1/ger;
        }
        die "labels: $line\n" if (pos $rest // 0) != length $rest;

        push @{ $metric{$name}{samples} }, [ $series, \%label, $value ];
    }

    for my $of (sort keys %metric) {
        die "$of has no type\n" if !$metric{$of}{type};
        die "$of: a counter is named so\n"
            if ($metric{$of}{type} eq 'counter') != ($of =~ /_total$/);
    }
    return \%metric;
}


# the one value of a series
sub value {
    my ($metrics, $series, %label) = @_;

    my ($metric) = map { $metrics->{$_} // () }
        $series, $series =~ s/_(?:bucket|sum|count)$//r;
    my @found = grep {
        my ($name, $has) = @$_;
        $name eq $series && keys %$has == keys %label
            && !grep { ($has->{$_} // '') ne $label{$_} } keys %label;
    } @{ $metric->{samples} };

    return @found == 1 ? $found[0][2] : undef;
}


# the numbers of one name in a list of the status: [ METRIC, LABELS, NUMBER ]
sub expected {
    my ($status) = @_;

    my @expected = (
        [ 'llm_build_info',
            { version => $status->{module}, nginx => $status->{nginx} }, 1 ],
        [ 'llm_zone_size_bytes', {}, $status->{zone}{size} ],
        [ 'llm_zone_used_bytes', {}, $status->{zone}{used} ],
    );

    for my $p (@{ $status->{providers} }) {
        my %of = (provider => $p->{name});
        push @expected,
            (map { [ 'llm_attempts_total', { %of, outcome => $_ },
                $p->{ $FIELD{$_} } ] } keys %FIELD),
            [ 'llm_in_flight', \%of, $p->{in_flight} ],
            (map { [ 'llm_stream_failures_total', { %of, reason => $_ },
                $p->{stream_failures}{$_} ] }
                keys %{ $p->{stream_failures} }),
            (map { [ 'llm_circuit_state', { %of, state => $_ },
                $p->{state} eq $_ ? 1 : 0 ] } qw(closed open half_open)),
            [ 'llm_circuit_open_remaining_seconds', \%of,
                $p->{time_until_retry} ],
            [ 'llm_addresses', \%of, $p->{addresses} ],
            [ 'llm_addresses_passed_over', \%of, $p->{passed_over} ],
            (map { [ 'llm_tokens_total', { %of, type => $_ },
                $p->{tokens}{$_} ] } keys %{ $p->{tokens} }),
            [ 'llm_cost_usd_total', \%of, $p->{cost} ];

        for my $from (keys %{ $p->{moves} }) {
            push @expected, map { [
                'llm_circuit_transitions_total',
                { %of, from => $from, to => $_ }, $p->{moves}{$from}{$_},
            ] } keys %{ $p->{moves}{$from} };
        }
    }

    for my $route (@{ $status->{routes} }) {
        my %of = (route => $route->{name});
        push @expected,
            (map { [ 'llm_requests_total', { %of, outcome => $_ },
                $route->{outcomes}{$_} ] } keys %{ $route->{outcomes} }),
            (map { [ 'llm_rejections_total', { %of, reason => $_ },
                $route->{rejections}{$_} ] }
                keys %{ $route->{rejections} });

        for my $from (keys %{ $route->{failovers_from} }) {
            push @expected, map { [
                'llm_failovers_total', { %of, from => $from, to => $_ },
                $route->{failovers_from}{$from}{$_},
            ] } keys %{ $route->{failovers_from}{$from} };
        }
    }

    return @expected;
}


sub differences {
    my ($metrics, $status) = @_;

    my @wrong;
    my %told = map { $_ => scalar @{ $metrics->{$_}{samples} } }
        keys %$metrics;

    for my $row (expected($status)) {
        my ($series, $label, $number) = @$row;
        my $is = value($metrics, $series, %$label) // 'missing';
        $told{$series}--;
        push @wrong, join ' ', $series, %$label, "is $is, not $number"
            if $is eq 'missing' || $is != $number;
    }

    push @wrong, map { "$_ has more" }
        grep { $told{$_} && $metrics->{$_}{type} ne 'histogram' }
        sort keys %told;
    return @wrong;
}

1;
