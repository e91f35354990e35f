package Round;

# One round of conversations: a configuration, a gateway, a crowd of callers,
# and what the oracle says of it all.

use strict;
use warnings;

use Time::HiRes qw(sleep time);

use LLM::Chaos;
use LLM::Crowd;
use LLM::Gateway;
use LLM::Oracle;
use LLM::TLS;

use constant {
    CALLS    => 120,
    PATIENCE => 60,         # seconds for a round
    TICK     => 0.05,
};

my ($crowd, $tls);

# Returns what is wrong.

sub run {
    my ($class, $seed, @only) = @_;

    my $self = bless {
        seed   => $seed,
        chaos  => LLM::Chaos->new($seed),
        ids    => @only ? \@only : [ 1 .. CALLS ],
        status => {},
        wrong  => [],
    }, $class;

    $self->_start;
    $self->_converse;
    $self->_rest;
    $self->_recover;
    $self->_end;

    my %seen;
    return map { $self->_with_log($_) } grep { !$seen{$_}++ }
        @{ $self->{wrong} };
}

sub _start {
    my $self = shift;

    $tls   //= LLM::TLS->new('127.0.0.1');
    $crowd //= LLM::Crowd->new(tls => $tls);
    $crowd->forget;

    my $setting = $self->{chaos}->setting;
    $self->{names} = delete $setting->{names};
    $setting->{http} .= 'proxy_ssl_trusted_certificate ' . $tls->ca . ';';

    $self->{gw} = LLM::Gateway->new(sources => $crowd->providers,
        log => ['http_x_chaos'], %$setting);
}

sub _converse {
    my $self = shift;

    my $r = $self->{chaos}->random('weather');
    $crowd->send($self->{gw}, $self->{chaos}, @{ $self->{ids} });

    my $until = time + PATIENCE;
    my $next = time + $r->seconds(0.05, 1);
    while (!$crowd->is_back) {
        return $self->_complain('the callers do not come back')
            if time > $until;
        $self->_glance;
        sleep TICK;

        if (time > $next) {
            $self->_weather($r);
            $next = time + $r->seconds(0.05, 1);
        }
    }

    $_->accept_again->greet('serve') for values %{ $crowd->providers };
    $self->_complain($crowd->complaints);
}

# what happens to providers as a whole, and to the gateway

sub _weather {
    my ($self, $r) = @_;

    my $p = $crowd->providers->{ $r->pick(@{ $self->{names} }) };
    my $what = $r->weighted(fair => 4, refuse => 1, greet => 2, drop => 2,
        reload => 1);

    if    ($what eq 'refuse') { $p->refuse }
    elsif ($what eq 'greet')  { $p->greet($r->pick(qw(close reset hang))) }
    elsif ($what eq 'drop')   { $p->drop($r->pick(qw(idle all))) }
    elsif ($what eq 'reload') { $self->{gw}->nginx->reload(leave_old => 1) }
    else                      { $p->accept_again->greet('serve') }
}

sub _glance {
    my $self = shift;

    my $status = $self->{gw}->status;
    $self->_complain(LLM::Oracle->glance($status, $self->{status}));
    $self->{status} = $status;
}

# nothing is in flight any more

sub _rest {
    my $self = shift;

    my $gw = $self->{gw};
    my @wrong;
    $gw->wait_for(sub { !(@wrong = LLM::Oracle->rest($gw->status)) })
        or $self->_complain(@wrong);

    $gw->wait_for(sub {
        !(@wrong = LLM::Oracle->log($gw->status, [ $crowd->results ],
            $self->_lines));
    }) or $self->_complain(@wrong);

    $self->_complain(LLM::Oracle->requests($self->{chaos}, [ $self->_lines ],
        map { $crowd->providers->{$_} } @{ $self->{names} }));
}

sub _lines {
    my $self = shift;

    return map { +{ /(\w+)=(\S*)/g } }
        split /\n/, $self->{gw}->nginx->access_log;
}

# healthy providers are all in use again soon

sub _recover {
    my $self = shift;

    my $gw = $self->{gw};
    my $n = 0;
    my @open;
    $gw->wait_for(sub {
        $n++;
        $crowd->send($gw, $self->{chaos}, map { "$_-$n" } @{ $self->{names} });
        sleep TICK until $crowd->is_back;
        return !(@open = grep {
            $_->{state} ne 'closed' && $_->{time_until_retry} < 5
                && !$_->{throttled_for} && !$self->_is_full($_)
        } @{ $gw->status->{providers} });
    }, 10) or $self->_complain(map { "$_->{name} stays $_->{state}" } @open);

    $self->_complain($crowd->complaints);
}

sub _is_full {
    my ($self, $p) = @_;

    return grep { $_->{used} >= 0.8 * $_->{limit} }
        values %{ $p->{limits} // {} };
}

sub _end {
    my $self = shift;

    my $nginx = $self->{gw}->nginx;
    my @workers = $nginx->workers;
    my ($alerts, $reports) = $nginx->retire;
    $self->_complain(@$alerts, $reports eq '' ? () : $reports,
        map { "process $_ is left" } grep { kill 0 => $_ } @workers);
}

# what the gateway says of the call

sub _with_log {
    my ($self, $complaint) = @_;

    my ($id) = $complaint =~ /^call ([\w-]+): / or return $complaint;
    return join "\n    ", $complaint, grep { /:$id$/ }
        split /\n/, $self->{gw}->nginx->access_log;
}

sub _complain {
    my ($self, @what) = @_;

    push @{ $self->{wrong} }, @what;
}

1;
