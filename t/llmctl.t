# An operator at a terminal: llmctl says what is wrong, takes a provider out
# of service and lets it in again, and tells scripts how it went.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use File::Temp qw(tempdir);
use JSON::PP qw(decode_json);
use LLM::Gateway;
use LLM::NameServer;
use LLM::Port;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

my $LLMCTL = "$FindBin::Bin/../bin/llmctl";

for my $tool (qw(curl jq)) {
    plan skip_all => "no $tool" if !grep { -x "$_/$tool" } split /:/,
        $ENV{PATH};
}

my $gw = LLM::Gateway->new(
    providers => [
        openai       => 'circuit failure_threshold=1 open=20s;',
        'deepseek.2' => '',
    ],
    server => <<'CONF',
        location /llm/    { llm_api; }
        location /page/   { return 200 "hello"; }
        location /gone/   { return 410; }
        location /denied/ { llm_api; deny all; }
        location /users/  { llm_api; auth_basic operators;
                            auth_basic_user_file {{prefix}}/users; }
CONF
);
$gw->nginx->file(users => "alice:{PLAIN}secret\n");

my $home = tempdir(CLEANUP => 1);
my %ENVIRONMENT = (PATH => $ENV{PATH}, HOME => $home,
    LLMCTL_URL => $gw->url . '/llm');

subtest 'what a new user sees' => sub {
    my $help = llmctl('help');
    is $help->{code}, 0;
    is $help->{err},  '';
    like $help->{out}, qr/^  llmctl $_\b/m, "$_ is explained"
        for qw(status watch open disable observe auto close reset help);
    is_deeply llmctl($_), $help, $_ for qw(--help -h);
    cmp_ok length, '<=', 80, 'it fits a terminal'
        for sort { length $b <=> length $a } split /\n/, $help->{out};

    my $none = llmctl();
    is $none->{code}, 2, 'without a word';
    is $none->{out},  '';
    is $none->{err},  $help->{out};
};

subtest 'status is a table' => sub {
    is_deeply table(), [
        [qw(PROVIDER STATE REASON UNTIL CALLS ERRORS)],
        [qw(openai closed - - 0 0)],
        [qw(deepseek.2 closed - - 0 0)],
    ];

    $gw->provider('openai')->behave(503);
    $gw->ask for 1 .. 3;
    my $rows = table();
    like $rows->[1][3], qr/^(?:1\d|2[0-2])s$/, 'until it is probed';
    splice @{ $rows->[1] }, 3, 1;
    is_deeply $rows->[1], [qw(openai open failure_threshold 1 1)];
    is_deeply $rows->[2], [qw(deepseek.2 closed - - 3 0)];

    is_deeply table('status', 'deepseek.2'), [ @$rows[0, 2] ], 'of one';

    my @lines = split /\n/, llmctl('status')->{out};
    is scalar(grep { / \z/ } @lines), 0, 'nothing is padded at the end';
    my %at = map { index($_, ' closed ') => 1, index($_, ' open ') => 1,
        index($_, ' STATE ') => 1 } @lines;
    delete $at{-1};
    is keys %at, 1, 'columns are columns';
};

subtest 'what probes and name servers find is told' => sub {
    my $dns = LLM::NameServer->new;
    my $probe = 'probe interval=500ms timeout=2s;';
    my $gw = LLM::Gateway->new(
        providers => [
            good   => $probe,
            bad    => $probe,
            key    => $probe,
            quiet  => '',
            nobody => 'endpoint http://not-there.test/v1;',
        ],
        http   => 'resolver ' . $dns->address . ';',
        server => 'location /llm/ { llm_api; }',
        start  => 0,
    );
    $gw->provider('bad')->behave_at('/models', 503);
    $gw->provider('key')->behave_at('/models', 401);
    $gw->start;
    for ([ good => 'success' ], [ bad => 'failure' ], [ key => 'credential' ]) {
        my ($name, $result) = @$_;
        ok $gw->wait_for(sub {
            ($gw->status($name)->{probe}{result} // '') eq $result;
        }, 20), "$name: $result";
    }
    ok $gw->wait_for(sub { $gw->status('nobody')->{dns}{error} }, 20);

    local $ENVIRONMENT{LLMCTL_URL} = $gw->url . '/llm';
    my ($circuits, $probes) = split /\n\n/, llmctl('status')->{out};

    my %row = map { /^(\S+)/ => $_ } split /\n/, $circuits;
    like $row{good}, qr/^good +closed +- +- +0 +0$/;
    like $row{bad}, qr/^bad +closed +- +- +0 +0$/;
    like $row{quiet}, qr/^quiet +closed +- +- +0 +0$/;
    like $row{key}, qr/^key \s+ closed .* \s 0 \s\s
        key \s refused \s by \s the \s provider
        \s \(probe, \s \d+ \s s \s ago\)$/x;
    like $row{nobody},
        qr/^nobody +unresolved +dns +- +0 +0  no address: Host not found$/;

    is $probes =~ tr/\n//, 4, 'who has no probe is not there';
    like $probes, qr/^PROVIDER  LAST PROBE +WHEN +TOOK +HOUR +DAY$/m;
    like $probes,
        qr/^good +success: status 200 +\d+ s ago +\d+ms  100%  100%$/m;
    like $probes, qr/^bad +failure: status 503 +\d+ s ago +\d+ms +0% +0%$/m;
    like $probes,
        qr/^key +credential: status 401 +\d+ s ago +\d+ms +0% +0%$/m;

    ($circuits, $probes) = split /\n\n/, llmctl('status', 'key')->{out};
    like $circuits, qr/key refused by the provider/, 'of one';
    like $probes, qr/^key +credential/m;
    unlike llmctl('status', 'quiet')->{out}, qr/PROBE/;

    # what a gateway says that has seen more
    my ($good) = grep { $_->{name} eq 'good' } @{ $gw->status->{providers} };
    %$good = (%$good, resolved => JSON::PP::true, addresses => 2,
        dns => { error => 'Operation timed out',
            last_resolved => '2026-01-01T00:00:00.000Z' },
        probe => { result => 'failure', error => 'timed out', latency => 2.04,
            time => '2026-01-01T02:57:00.678Z',
            success_rate => { hour => 0.99999, day => undef } });
    my $none = { %$good, name => 'none', dns => undef,
        probe => { success_rate => {} } };
    $gw->provider('quiet')->behave({
        headers => { date => 'Thu, 01 Jan 2026 03:00:00 GMT' },
        body => JSON::PP::encode_json({ providers => [ $good, $none ] }),
    });
    ($circuits, $probes) = split /\n\n/,
        llmctl('status', '--url', $gw->provider('quiet')->url)->{out};
    like $circuits, qr/^good .* \s\s DNS: \s Operation \s timed \s out, \s goes
        \s on \s with \s its \s addresses \s of \s 3 \s h \s ago$/mx;
    like $probes,
        qr/^good +failure: timed out +3 min ago  +2s  99\.9% +-$/m;
    like $probes, qr/^none +none yet +- +- +- +-$/m;
    $gw->done;
};

subtest 'words are said and taken back' => sub {
    is llmctl('open', 'deepseek.2', '--ttl', '10m')->{out},
        "deepseek.2: open, circuit closed, for 600 s"
        . " (was auto, circuit closed)\n";
    is $gw->status('deepseek.2')->{admin}, 'open';
    my $row = table()->[2];
    like $row->[3], qr/^(?:10m0s|9m5\ds)$/;
    is_deeply [ @$row[0 .. 2] ], [qw(deepseek.2 open operator)];

    like llmctl('close', 'deepseek.2')->{out},
        qr/^deepseek\.2: auto, circuit closed \(was open, circuit closed, /;
    is llmctl('disable', 'deepseek.2')->{out},
        "deepseek.2: disabled, circuit closed (was auto, circuit closed)\n";
    is_deeply table()->[2], [qw(deepseek.2 disabled operator - 3 0)];
    is llmctl('observe', '--ttl=1h30m', 'deepseek.2')->{code}, 0;
    like join(' ', @{ table()->[2] }),
        qr/^deepseek\.2 closed operator - 3 0 observed for 1h(?:30|29)m$/;
    is llmctl('auto', 'deepseek.2')->{code}, 0;
    is $gw->status('deepseek.2')->{admin}, 'auto';

    is llmctl('reset', 'openai')->{out},
        "openai: auto, circuit closed (was auto, circuit open)\n";
    is $gw->status('openai')->{state}, 'closed';

    is llmctl('open', 'openai', '--ttl', 90)->{code}, 0, 'plain seconds';
    cmp_ok $gw->status('openai')->{admin_ttl}, '<=', 90;
    is llmctl('auto', 'openai')->{code}, 0;
};

subtest '--json is what the gateway says' => sub {
    my $list = llmctl('status', '--json');
    is_deeply decode_json($list->{out}),
        { providers => $gw->status->{providers} };
    is_deeply decode_json(llmctl(qw(--json status openai))->{out}),
        $gw->status('openai');
    is_deeply decode_json(llmctl(qw(open openai --json))->{out}), {
        provider => 'openai', action => 'open',
        was => { admin => 'auto', state => 'closed' },
        is  => { admin => 'open', state => 'closed' },
    };
    is llmctl(qw(close openai))->{code}, 0;
};

subtest 'what the gateway refuses is told, with code 1' => sub {
    my %told = (
        'status nope'           => qr/There is no provider "nope": expected/,
        'open nope'             => qr/There is no provider "nope": expected/,
        'open ../openai'        => qr/There is nothing here/,
        'open openai --ttl 10x' => qr/Invalid "ttl": expected a time from/,
        'open openai --ttl 31d' => qr/Invalid "ttl": expected a time from/,
    );
    for my $what (sort keys %told) {
        my $r = llmctl(split / /, $what);
        is $r->{code}, 1, $what;
        is $r->{out},  '';
        like $r->{err}, qr/^llmctl: $told{$what}/;
    }
    like llmctl('status', 'a b"%0a')->{err}, qr/no provider "a b"%0a"/,
        'a name is sent as it is';

    my $r = llmctl('status', '--url', $gw->url . '/denied');
    is $r->{code}, 1;
    like $r->{err}, qr/The gateway denies access/;
    is $gw->status('openai')->{admin}, 'auto', 'and nothing was done';
};

subtest 'wrong usage is told, with code 2' => sub {
    my %told = (
        'dance'                   => qr/unknown command dance/,
        'open'                    => qr/open which provider\?/,
        'open openai deepseek.2'  => qr/too much: deepseek\.2/,
        'open openai --tll 10m'   => qr/unknown option --tll/,
        'open openai --ttl'       => qr/--ttl needs a value/,
        'auto openai --ttl 10m'   => qr/--ttl is for open, disable and obs/,
        'status --ttl 10m'        => qr/--ttl is for open, disable and obs/,
        'watch soon'              => qr/watch takes a number of seconds/,
        'watch 0'                 => qr/watch takes a number of seconds/,
    );
    for my $what (sort keys %told) {
        my $r = llmctl(split / /, $what);
        is $r->{code}, 2, $what;
        is $r->{out},  '';
        like $r->{err}, qr/^llmctl: $told{$what}/;
        like $r->{err}, qr/"llmctl help" tells/;
    }
};

subtest 'where no gateway is, that is told, with code 3' => sub {
    my $free = LLM::Port->new;
    my $url  = 'http://127.0.0.1:' . $free->number;

    my $r = llmctl('open', 'openai', "--url=$url");
    is $r->{code}, 3;
    is $r->{out},  '';
    like $r->{err}, qr/^curl: .*\nllmctl: no answer from \Q$url\E$/m;

    for my $uri (qw(/page /gone)) {
        $r = llmctl('status', '--url', $gw->url . $uri);
        is $r->{code}, 3, $uri;
        like $r->{err}, qr/$uri is no location with llm_api: it answered/;
    }

    local $ENVIRONMENT{LLMCTL_URL} = $gw->url . '/llm/';
    local $ENVIRONMENT{http_proxy} = $url;
    is llmctl('status')->{code}, 0, 'no proxy is asked for this machine';
};

subtest 'without curl or jq that is told, with code 4' => sub {
    for my $missing (qw(curl jq)) {
        my $path = tempdir(CLEANUP => 1);
        symlink "/usr/bin/$_", "$path/$_" for grep { $_ ne $missing }
            qw(curl jq);
        local $ENVIRONMENT{PATH} = $path;
        my $r = llmctl('status');
        is $r->{code}, 4, $missing;
        is $r->{err}, "llmctl: needs $missing: apt-get install $missing\n";
    }
};

subtest 'a user and a password come from ~/.netrc' => sub {
    my @users = ('status', '--url', $gw->url . '/users');
    my $r = llmctl(@users);
    is $r->{code}, 1;
    like $r->{err}, qr/needs credentials/;

    open my $file, '>', "$home/.netrc" or die "$home/.netrc: $!";
    print {$file} "machine 127.0.0.1 login alice password secret\n";
    close $file or die "$home/.netrc: $!";
    is llmctl(@users)->{code}, 0;
};

subtest 'watch shows it again and again' => sub {
    my $pid = open my $out, '-|';
    defined $pid or die "fork: $!";
    if (!$pid) {
        run('watch', 1);
    }

    is scalar <$out>, (split /^/, llmctl('status')->{out})[0], 'the table';
    is llmctl(qw(disable openai))->{code}, 0;
    my $start = time;
    my $seen;
    while (time - $start < 10 && defined(my $line = <$out>)) {
        unlike $line, qr/\e/, 'plain, where it is no terminal' or last;
        $seen = $line =~ /^openai +disabled /;
        last if $seen;
    }
    ok $seen, 'and what has changed';

    kill TERM => $pid;
    close $out;
    is llmctl(qw(auto openai))->{code}, 0;
};

subtest 'any POSIX shell will do' => sub {
    my @shells = grep { -x } map { "/bin/$_" } qw(dash bash busybox);
    for my $shell (@shells) {
        my @how = $shell =~ /busybox/ ? ($shell, 'sh')
            : $shell =~ /bash/ ? ($shell, '--posix') : $shell;
        is llmctl_in(\@how, 'status')->{code}, 0, "@how";
    }
};

done_testing;


sub llmctl { llmctl_in([], @_) }


sub llmctl_in {
    my ($shell, @arguments) = @_;

    my $err = File::Temp->new;
    my $pid = open my $out, '-|';
    defined $pid or die "fork: $!";
    if (!$pid) {
        open STDERR, '>&', $err;
        run_in($shell, @arguments);
    }

    my $text = do { local $/; <$out> } // '';
    local ($?, $!);
    close $out;
    my $code = $? >> 8;
    open my $told, '<', "$err" or die "$err: $!";
    local $/;
    return { out => $text, code => $code, err => scalar <$told> // '' };
}


sub run { run_in([], @_) }


# in the child
sub run_in {
    my ($shell, @arguments) = @_;

    %ENV = %ENVIRONMENT;
    { no warnings 'exec'; exec @$shell, $LLMCTL, @arguments }
    print STDERR "$LLMCTL: $!\n";
    POSIX::_exit(127);
}


sub table {
    my @what = @_ ? @_ : 'status';

    my $r = llmctl(@what);
    is $r->{code}, 0, "@what" or diag($r->{err});
    return [ map { [ split ' ' ] } split /\n/, $r->{out} ];
}
