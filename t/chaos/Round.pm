package Round;

# One round of conversations: a configuration, and what comes of it.

use strict;
use warnings;

use parent 'Scene';

use Time::HiRes qw(time);

use constant {
    CALLS => 120,
    TIME  => 60,            # seconds, at most
};

# Returns what is wrong.

sub run {
    my ($class, $seed, @only) = @_;

    my $self = $class->new($seed);
    my $setting = $self->{chaos}->setting;
    $self->{names} = delete $setting->{names};
    $setting->{http} .= "proxy_ssl_trusted_certificate $self->{ca};";

    $self->{gw} = LLM::Gateway->new(sources => $self->{crowd}->providers,
        log => ['http_x_chaos'], %$setting);

    $self->converse(time + TIME, sub { $self->happen(@_) },
        @only ? @only : 1 .. CALLS);
    $self->{crowd}->fair;
    $self->let_be;

    $self->rest;
    $self->complain(LLM::Oracle->requests($self->{chaos}, $self->{tally},
        map { $self->{crowd}->providers->{$_} } @{ $self->{names} }));

    $self->recover;
    $self->complain(
        LLM::Oracle->answers($self->{tally}, $self->{crowd}->results));
    $self->end;

    my %seen;
    return map { $self->_with_log($_) } grep { !$seen{$_}++ }
        @{ $self->{wrong} };
}

sub happen {
    my ($self, $r) = @_;

    return $self->{gw}->nginx->reload(leave_old => 1) if $r->chance(0.1);
    return $self->order($r) if $r->chance(0.3);
    $self->{crowd}->weather($r, @{ $self->{names} });
}

# what the gateway says of the call

sub _with_log {
    my ($self, $complaint) = @_;

    my ($id) = $complaint =~ /^call ([\w-]+): / or return $complaint;
    return join "\n    ", $complaint, grep { /:$id$/ }
        split /\n/, $self->{gw}->nginx->access_log;
}

1;
