# The documentation says what the code does: each page is held against the
# source, against a running nginx, or against nginx -t.

use strict;
use warnings;
use utf8;

use FindBin;
use lib "$FindBin::Bin/lib";

use File::Basename qw(basename dirname);
use JSON::PP ();
use LLM::Nginx;
use LLM::TLS;
use Test::More;

binmode $_, ':utf8' for Test::More->builder->output,
    Test::More->builder->failure_output, Test::More->builder->todo_output;

use constant LINE => 100;

my $root = dirname($FindBin::Bin);
my @pages = map { substr $_, length "$root/" }
    "$root/README.md", "$root/CHANGELOG.md", glob "$root/docs/*.md";
# a table of benchmarks is measured, not written
my %page = map {
    $_ => slurp("$root/$_") =~ s/^<!-- bench:begin.*?bench:end -->\n//msr
} @pages;
my $code = join "\n", map { slurp($_) }
    glob("$root/src/*.h"), glob("$root/src/*.c"), glob("$root/src/core/*.[ch]");

my $nginx = LLM::Nginx->new;

subtest 'every directive is explained, and no other' => sub {
    my %is     = commands();
    my %should = directives();

    same([ keys %should ], [ keys %is ], 'directives');

    for my $name (sort keys %is) {
        my $section = $should{$name} or next;
        is $section->{context}, $is{$name}, "context of $name";
        like $section->{text}, qr/^```nginx .*^\s*\Q$name\E\b/ms,
            "$name has an example";
    }
};

subtest 'parameters have the values and defaults of the code' => sub {
    my %section = directives();

    my @names = $code =~ /ngx_http_llm_(\w+)_words\[\] = /g;
    cmp_ok scalar @names, '>', 2, 'the tables of the code were found';

    for my $name (@names) {
        my ($section) = grep { defined } @section{$name, "llm_$name"};
        is_deeply rows(documented_numbers($section->{text})),
            rows(numbers($name)), $name;
    }
};

subtest 'other parameters are the code\'s' => sub {
    my %section = directives();
    my %number  = map { $_ => 1 } map { my %n = numbers($_); keys %n }
        $code =~ /ngx_http_llm_(\w+)_words\[\] = /g;

    # those of llm_commit have a table of their own
    my @is = grep { $_ ne 'window' }
        $code =~ /strncmp\([^;]*?"(\w+)=\/?"/gs,
        $code =~ /ngx_http_llm_log_words\[\] = \{(.*?)\n\};/s
            ? $1 =~ /"(\w+)"/g : ();
    my %told = map { $_ => 1 } map {
        my ($syntax) = /^\| \*\*Syntax\*\* \| (.*) \|$/m;
        $syntax =~ /\b([a-z_]+)=/g;
    } map { $_->{text} } values %section;
    my %is = map { $_ => 1 } @is;
    delete @told{ 'window', grep { !$is{$_} } keys %number };

    same([ keys %told ], \@is, 'parameters');
};

subtest 'a zone has room for what is promised' => sub {
    my %section = directives();
    my @rows = table($section{llm_zone}{text}, 'size');
    cmp_ok scalar @rows, '>', 1, 'the table was found';

    my @workers = (1, 4, 16);
    for my $i (0 .. $#workers) {
        my $several = LLM::Nginx->new(workers => $workers[$i]);
        for my $row (@rows) {
            my $size  = $row->[0];
            my @names = map { "p$_" } 1 .. $row->[ 1 + $i ];
            $several->write_conf(
                http => join "\n", "llm_zone llm:$size;",
                    (map { "llm_provider $_ { endpoint http://127.0.0.1:9; }" }
                        @names),
                    'upstream llm {', (map { "llm_use $_;" } @names), '}',
            );
            my ($well, $output) = $several->test_conf;
            ok $well, "$size, workers: $workers[$i], providers: $names[-1]"
                or diag($output);
        }
    }

    my ($four, $many) = (grep { $_->[0] eq '1m' } @rows)[0]->@[2, 3];
    like $page{'README.md'},
        qr/holds $four providers with 4 workers, and\s$many\swith 16 or more/,
        'README says the same';
};

subtest 'moments of a commit are the code\'s' => sub {
    my %section = directives();
    my ($body) = $code =~ /^ngx_http_llm_commit_when\(.*?\n\{(.*?)\n\}/ms;
    my %is = map { $_ => 1 } $body =~ /\.data, "(\w+=?)"/g;

    my @told = map { s/=(?:TIME|SIZE)$/=/r }
        map { $_->[0] } table($section{llm_commit}{text}, 'Value');
    same(\@told, [ keys %is ], 'values of llm_commit');

    my ($max)   = $code =~ /#define NGX_HTTP_LLM_HOLD_MAX\s+(\d+)/;
    my ($error) = $code =~ /#define NGX_HTTP_LLM_HOLD_BODY\s+(\d+)/;
    my ($held, $taken, $read)
        = map { "$_ KB" } $max / 1024, $max / 512, $error / 1024;
    my $text = $section{llm_commit}{text};

    like $text, qr/at most $held of an answer are held/, 'what is held';
    like $text, qr/takes at most $taken\b/, 'what it takes';
    like $text, qr/up to $read\b/, 'what is read of an error';
};

subtest 'what llm_pass says to nginx is told' => sub {
    my %section = directives();
    my %told = map { $_->[0] => $_->[1] }
        table($section{llm_pass}{text}, 'Directive');

    is_deeply \%told, { stock_defaults() };
};

subtest 'every variable is explained, and no other' => sub {
    my @is = $code =~ /\{\s*ngx_string\("(llm_\w+)"\),\s*NULL,
        \s*ngx_http_llm_variable/gx;

    same([ $page{'docs/variables.md'} =~ /^## \$(llm_\w+)$/mg ], \@is,
        'variables');

    my %is = map { $_ => 1 } @is;
    for my $name (@pages) {
        same([ grep { !$is{$_} } $page{$name} =~ /\$(llm_\w+)/g ], [],
            "$name has no others");
    }
};

subtest 'values of $llm_outcome are the code\'s' => sub {
    my ($words) = $code =~ /ngx_http_llm_outcomes\[\]\s*=\s*\{(.*?)\}/s;

    same([ map { $_->[0] } table($page{'docs/variables.md'}, 'Value') ],
        [ grep { length } $words =~ /"(\w*)"/g ], 'outcomes');
};

subtest 'verdicts are the code\'s' => sub {
    my $text = $page{'docs/failover.md'};

    is_deeply [ map { "@$_" } table($text, 'Status') ], [ verdicts() ],
        'by status';

    my %next = map { $_->[0] => $_->[1] } table($text, 'Class');
    is_deeply \%next, { goes_on() }, 'who is asked next';
};

subtest 'words of a body are the code\'s' => sub {
    my ($table) = $code =~ /llm_error_table\[\] = \{(.*?)\n\};/s;
    my @is = map { join ' ', @$_ } error_words($table);
    cmp_ok scalar @is, '>', 20, 'the table of the code was found';

    my @told;
    for my $row (table($page{'docs/failover.md'}, 'In the body')) {
        my ($words, $statuses, $class) = @$row;
        push @told, map { "$_ $statuses $class" } split /, /, $words;
    }
    same(\@told, \@is, 'words');
};

subtest 'reasons of a circuit that moves are the code\'s' => sub {
    my ($names) = $code =~ /^llm_reason_name\(.*?names\[\] = \{(.*?)\};/ms;

    same([ map { $_->[0] } table($page{'docs/circuit.md'}, 'Reason') ],
        [ grep { $_ ne 'none' } $names =~ /"(\w+)"/g ],
        'reasons');
};

subtest 'errors are the code\'s' => sub {
    my $text = $page{'docs/errors.md'};

    my ($errors) = $code =~ /ngx_http_llm_errors\[\] = \{(.*?)\n\};/s;
    my @is = map { join ' | ', @$_ } error_rows($errors);
    cmp_ok scalar @is, '>', 5, 'the table of the code was found';
    is_deeply [ map { join ' | ', @$_ } table($text, 'Status') ], \@is,
        'nginx\'s own';

    my %code = map { $_ => 1 }
        $code =~ /ctx->code = "(\w+)"/g,
        c_strings('ngx_http_llm_rejections');
    same([ map { $_->[2] } table($text, 'Situation') ], [ keys %code ],
        'the gateway\'s');

    my %message = map { $_ => 1 } c_strings(qw(
        ngx_http_llm_faults ngx_http_llm_refusals ngx_http_llm_limits
    ));
    delete @message{ '', 'status', 'admitted', 'taken out of service' };
    delete $message{'too slow'};    # its caller has the answer
    delete $message{'too large'};   # of a call of the gateway's own
    my @told = map { @$_ > 0 ? $_->[0] =~ /([^,]+)/g : () }
        table($text, 'In brackets');
    same([ grep { !/^\d+ s left$|^status|^address/ } map { s/^ //r } @told ],
        [ map { split /, / } keys %message ], 'words for a provider');

    my @events = error_events();
    is scalar @events, 3, 'error events: one for each dialect';
    for my $event (@events) {
        like $text, qr/^```text\n\Q$event\E```$/m, 'is told';
    }
};

subtest 'an operator\'s words are the code\'s' => sub {
    my %section = directives();

    my ($actions) = $code =~ /ngx_http_llm_actions\[\] = \{(.*?)\n\};/s;
    my @is = $actions =~ /\{ "(\w+)"/g;
    same([ map { $_->[0] } table($section{llm_api}{text}, 'Action') ], \@is,
        'actions');
    same([ map { $_->[0] =~ /^llmctl (\w+)/ }
        table($page{'docs/operations.md'}, 'Command') ], \@is,
        'commands of llmctl');

    my ($words) = $code =~ /^llm_admin_name\(.*?names\[\] = \{(.*?)\};/ms;
    same([ map { $_->[0] } table($page{'docs/circuit.md'}, 'Word') ],
        [ $words =~ /"(\w+)"/g ], 'words');

    my ($usage) = slurp("$root/bin/llmctl") =~ /<<'END'\n(.*?)^END$/ms;
    same([ $usage =~ /\b(\d) \w/g ],
        [ slurp("$root/bin/llmctl") =~ /^[A-Z]+=(\d)\b/mg, 0 ], 'exit codes');
    same([ map { $_->[0] } table($page{'docs/operations.md'}, 'Exit code') ],
        [ slurp("$root/bin/llmctl") =~ /^[A-Z]+=(\d)\b/mg, 0 ], 'told');
};

subtest 'llmctl, its manual and its page say the same' => sub {
    my ($usage) = slurp("$root/bin/llmctl") =~ /<<'END'\n(.*?)^END$/ms;
    my $manual  = slurp("$root/bin/llmctl.1") =~ s/\\-/-/gr;

    my @commands = $usage =~ /^  llmctl (\w+)/mg;
    cmp_ok scalar @commands, '>', 5, 'the commands were found';
    same([ $manual =~ /^\.TP\n\.BI? (\w+)(?: |\\|$)/mg ],
        [ @commands, $usage =~ /\b(\d) \w/g, 'LLMCTL_URL' ],
        'commands and exit codes');
    same([ $manual =~ /^\.TP\n\.BI? (--\w+)/mg ],
        [ $usage =~ /^  (--\w+)/mg ], 'options');
    like $page{'docs/operations.md'}, qr/`llmctl $_|`--json`|`--url`/, $_
        for grep { $_ ne 'help' } @commands;
};

subtest 'statuses of the API are the code\'s' => sub {
    my %status = (
        BAD_REQUEST            => 400,
        FORBIDDEN              => 403,
        NOT_FOUND              => 404,
        NOT_ALLOWED            => 405,
        REQUEST_ENTITY_TOO_LARGE => 413,
        UNSUPPORTED_MEDIA_TYPE => 415,
    );
    my $api = slurp("$root/src/ngx_http_llm_api.c");

    same([ map { $_->[0] }
        table($page{'docs/errors.md'}, 'The API\'s status') ],
        [ grep { defined } map { $status{$_} } $api =~ /NGX_HTTP_([A-Z_]+)/g ],
        'statuses');
};

subtest 'what a browser is told is the code\'s' => sub {
    my ($told) = grep { /^Content-Security-Policy/ }
        blocks('docs/dashboard.md', 'text');
    my $strings = $code =~ s/"\s*\n\s*"//gr;

    for ($told =~ s/\n\s+/ /gr =~ /^(.+: .+)$/mg) {
        my ($name, $value) = split /: /, $_, 2;
        ok $strings =~ /"\Q$name\E"/ && $strings =~ /"\Q$value\E"/, $name;
    }
};

subtest 'what is removed from a request is told' => sub {
    my $text = $page{'docs/security.md'};

    same([ map { $_->[0] } table($text, 'Header') ],
        [ grep { length } c_strings('ngx_http_llm_secret_headers') ],
        'headers');
    same([ map { $_->[0] } table($text, 'Argument') ],
        [ grep { length } c_strings('ngx_http_llm_secret_args') ],
        'arguments');
};

subtest 'every claim of security has its test, and every test its claim'
    => sub {
    my @claims = map { split /<br>/, $_->[2] }
        tables($page{'docs/security.md'}, 'Attack');
    cmp_ok scalar @claims, '>', 30, 'the claims were found';

    my %names = map { /^(\w+): / ? ($1 => { subtests($1) }) : () } @claims;

    my %claimed;
    for my $claim (@claims) {
        my ($file, $name) = $claim =~ /^(\w+): (.*)$/;
        ok $file && $names{$file}{$name}, $claim;
        $claimed{$file}{$name} = 1;
    }
    for my $file (qw(security security_provider)) {
        my @silent = grep { !$claimed{$file}{$_} && !/^the sums hold/ }
            keys %{ $names{$file} };
        is_deeply \@silent, [], "$file.t has no other";
    }
};

subtest 'every field of a status is explained, and no other' => sub {
    same([ map { $_->[0] } tables($page{'docs/status.md'}, 'Field') ],
        [ fields(status()) ], 'fields');
};

subtest 'every metric is explained, and no other' => sub {
    my ($table) = $code =~ /ngx_http_llm_metrics\[\] = \{(.*?)\n\};/s;

    my %is;
    while ($table =~ /\{\s*"(\w+)",\s*"(\w+)",\s*(?:NULL|"[\w.]+"),
        \s*(?:NULL|"[\w.]+"),\s*\{\s*(NULL|"[^}]*)\s*\}/gx)
    {
        my ($name, $type, $labels) = ($1, $2, $3);
        $is{"$name, $type, " . join ', ', $labels =~ /"(\w+)"/g} = 1;
    }
    cmp_ok scalar keys %is, '>', 10, 'the table of the code was found';

    same([ map { join ', ', @$_[ 0 .. 2 ] }
        table($page{'docs/metrics.md'}, 'Metric') ], [ keys %is ], 'metrics');
};

subtest 'every line of the error log is explained, and no other' => sub {
    my @is = log_lines();
    cmp_ok scalar @is, '>', 30, 'the lines of the code were found';

    # the most exact one comes first
    @is = sort { length $b->{like} <=> length $a->{like} } @is;
    my $is = sub { (grep { $_[0] =~ $_->{like} } @is)[0] };

    my %told = map { $is->($_)->{text} // '' => 1 }
        map { $page{"docs/$_.md"} =~ /`(llm: [^`]*)`/g } qw(log names);
    ok $told{ $_->{text} }, "told: $_->{text}" for @is;

    for (grep { $_->[0] =~ /^llm: / }
        map { tables($page{"docs/$_.md"}, 'Line') } qw(log names))
    {
        my ($shown, $told) = @$_;
        my $level = $is->($shown)->{level} || $told;
        is $told, $level, "level of $shown";
    }

    for my $name (@pages) {
        for ($page{$name} =~ /`(llm: [^`]*)`/g,
            map { /^(?:\[\w+\] )?(llm: .*)$/mg } blocks($name, 'text'))
        {
            ok $is->($_), "$name: $_";
        }
    }
};

subtest 'every source file has its place in internals' => sub {
    same([ map { $_->[0] } tables($page{'docs/internals.md'}, 'File') ],
        [ map { basename($_) } sources() ], 'files');
};

subtest 'every make target that is named exists' => sub {
    my %target = map { $_ => 1 }
        slurp("$root/Makefile") =~ m{^([\w/.-]+):(?!=)}mg;

    for my $name (@pages) {
        my @named = map { /^\s*make[ ]+(?:[A-Z_]+=\S+[ ]+)*([a-z][\w\/-]*)/mg }
            blocks($name, 'sh'), $page{$name} =~ /`(make [^`]+)`/g;
        same([ grep { !$target{$_} && !m{^build/} } @named ], [], $name);
    }
};

subtest 'every example of a configuration is one' => sub {
    my $found = 0;

    for my $name (@pages) {
        while ($page{$name} =~ /^```nginx(?: (\w+))?\n(.*?)^```$/msg) {
            my ($context, $text) = ($1 // '', $2);
            my $line = 1 + (substr($page{$name}, 0, $-[0]) =~ tr/\n//);

            $found++;
            like $context, qr/^(?:main|http|server|provider)$/,
                "$name:$line says where it belongs" or next;
            accepts("$name:$line", $context, $text);
        }
    }

    cmp_ok $found, '>', 10, 'there are examples';
};

subtest 'examples of JSON, of a shell and of PromQL are none with mistakes'
    => sub {
    for my $name (@pages) {
        ok eval { JSON::PP->new->decode($_); 1 }, "$name: JSON" or diag($@)
            for blocks($name, 'json');

        for my $script (blocks($name, 'sh')) {
            my $file = $nginx->file('script.sh', $script);
            is `bash -n '$file' 2>&1`, '', "$name: a shell takes it";
        }
    }

  SKIP: {
        skip 'promtool is not installed', 1
            if !grep { -x "$_/promtool" } split /:/, $ENV{PATH};

        my @queries = blocks('docs/metrics.md', 'promql');
        cmp_ok scalar @queries, '>', 2, 'there are queries';
        my $n     = 0;
        my $rules = join '', map {
            '  - record: docs:' . $n++ . "\n    expr: |\n"
                . s/^/      /mgr . "\n";
        } map { split /\n(?=\S)/ } @queries;
        my $file = $nginx->file('rules.yml',
            "groups:\n- name: docs\n  rules:\n$rules");
        my $said = `promtool check rules '$file' 2>&1`;
        is $?, 0, 'promtool takes them' or diag($said);
    }
};

subtest 'the quick start is an example, too' => sub {
    my $stand_ins = slurp("$root/examples/quickstart/stand-ins.conf");

    accepts('the stand-ins', 'http',
        $stand_ins =~ s/^include.*$//mr =~ s/^/    /mgr);
};

subtest 'every link leads somewhere' => sub {
    my $found = 0;

    for my $name (@pages) {
        my $text = $page{$name} =~ s/^```.*?^```$//msgr;

        for my $link ($text =~ /\[[^\]]+\]\(([^)]+)\)/g) {
            next if $link =~ m{^https?://};
            my ($path, $anchor) = $link =~ /^([^#]*)(?:#(.*))?$/;
            my $to = $path eq '' ? $name : normal(dirname($name) . "/$path");

            $found++;
            ok -e "$root/$to", "$name: $link" or next;
            next if !defined $anchor;
            ok scalar(grep { $_ eq $anchor } anchors($page{$to} // '')),
                "$name: $link has its heading";
        }
    }

    cmp_ok $found, '>', 20, 'there are links';
};

subtest 'every page is found from the index' => sub {
    for my $name (grep { m{^docs/} && $_ ne 'docs/README.md' } @pages) {
        my $file = basename($name);
        like $page{'docs/README.md'}, qr/\]\(\Q$file\E\)/, $name;
    }
};

subtest 'lines can be read in a terminal' => sub {
    for my $name (@pages) {
        my $text = $page{$name} =~ s/^```.*?^```$//msgr;
        my @long = grep { length > LINE && !/^\|/ } split /\n/, $text;
        is scalar @long, 0, $name or diag(join "\n", @long);
        unlike $text, qr/[ \t]$/m, "$name: no blanks at the end of a line";
    }
};

done_testing;


# pages

sub slurp {
    my ($file) = @_;

    open my $fh, '<:encoding(UTF-8)', $file or die "$file: $!";
    local $/;
    return scalar <$fh>;
}


# the rows of the first table whose first column is headed so; cells without
# their marks of code
sub table {
    my ($text, $first) = @_;

    $text =~ /^\|\ \Q$first\E\ \|.*\n\|[-|]+\n((?:\|.*\n)+)/mx
        or return;
    return map {
        my $row = s/^\|\s*|\s*\|$//gr;
        [ map { s/^\s+|\s+$//gr =~ s/`//gr } split /\s\|\s|\s\|$/, $row ];
    } split /\n/, $1;
}


sub tables {
    my ($text, $first) = @_;

    return map { table("$_\n", $first) }
        split /\n(?=\n)/, $text;
}


sub subtests {
    my ($file) = @_;

    my $text  = slurp("$root/t/$file.t") =~ s/'\n\s*\. '//gr;
    my @names = $text =~ /^subtest ('(?:[^'\\]|\\.)*'|"[^"]*")/mg;
    return map { substr($_, 1, -1) =~ s/\\(.)/$1/gr => 1 } @names;
}


sub blocks {
    my ($name, $language) = @_;

    return $page{$name} =~ /^```$language\n(.*?)^```$/msg;
}


# as GitHub makes them
sub anchors {
    my ($text) = @_;

    return map { lc =~ s/[^\w\- ]//gr =~ s/ /-/gr }
        ($text =~ s/^```.*?^```$//msgr) =~ /^#+ (.*)$/mg;
}


sub normal {
    my ($path) = @_;

    $path =~ s{^\./}{};
    1 while $path =~ s{[^/]+/\.\./}{};
    return $path;
}


sub same {
    my ($told, $is, $what) = @_;

    my %told = map { $_ => 1 } @$told;
    my %is   = map { $_ => 1 } @$is;
    my @missing = grep { !$told{$_} } sort keys %is;
    my @wrong   = grep { !$is{$_} } sort keys %told;

    ok !@missing && !@wrong, "$what agree" or do {
        diag("not told: @missing") if @missing;
        diag("not in the code: @wrong") if @wrong;
    };
}


# those of the project: what somebody has only begun is not among them
sub sources {
    my @tracked = `git -C '$root' ls-files 'src/*.c' 2>/dev/null`;
    chomp @tracked;

    return @tracked ? @tracked : glob "$root/src/*.c $root/src/core/*.c";
}


# of the code: { text, like, level }; the level is empty where it varies
sub log_lines {
    my $string = qr/"(?:[^"\\]|\\.)*"/;

    my @lines;
    while ($code =~ /ngx_(conf_)?log_error\(\s*([\w()>-]+?),
        (?:(?!ngx_log_error|;\n).)*?
        ("llm:\ (?:[^"\\]|\\.)*"
            (?:\s*(?:ngx_\w+\s+)?$string)*)/gsx)
    {
        my ($level, $literal) = ($2, $3);
        my $text = join '', map { /^"(.*)"$/s ? $1 =~ s/\\"/"/gr : '%V' }
            $literal =~ /$string|ngx_\w+/g;
        my $like = join '.*?', map { quotemeta } split
            /%(?:\*|\d+)?u?[iDLOMPsVZ]/, $text, -1;
        my ($word) = $level =~ /^ngx_http_llm_log_(\w+)\(/;

        push @lines, {
            text  => $text,
            like  => qr/^$like$/,
            level => $word ? "*$word*"
                : $level eq 'NGX_LOG_ERR' ? 'error'
                : $level =~ /^NGX_LOG_(\w+)$/ ? lc $1 : '',
        };
    }
    return @lines;
}


# directives

sub commands {
    my ($table) = $code =~ /ngx_command_t\s+ngx_http_llm_commands\[\]\s*=
        \s*\{(.*?)ngx_null_command/sx or die 'no table of directives';

    my %context = (
        NGX_HTTP_MAIN_CONF         => 'http',
        NGX_HTTP_LLM_PROVIDER_CONF => 'llm_provider',
        NGX_HTTP_UPS_CONF          => 'upstream',
        NGX_HTTP_SRV_CONF          => 'server',
        NGX_HTTP_LOC_CONF          => 'location',
        NGX_HTTP_LIF_CONF          => 'if in location',
    );

    my %command;
    while ($table =~ /ngx_string\("(\w+)"\),\s*([\w|\s]+),/g) {
        my ($name, $flags) = ($1, $2);
        $command{$name} = join ', ',
            map { $context{$_} // () } $flags =~ /\w+/g;
    }
    return %command;
}


sub directives {
    my (undef, %text) = split /^## (\w+)\n/m, $page{'docs/directives.md'};

    return map {
        my ($context) = $text{$_} =~ /^\| \*\*Context\*\* \| (.*) \|$/m;
        my ($syntax)  = $text{$_} =~ /^\| \*\*Syntax\*\* \| (.*) \|$/m;
        my $is_told   = ($syntax // '') =~ /^`\Q$_\E\s/
            && $text{$_} =~ /^\| \*\*Default\*\* \| \S/m;
        $_ => {
            text    => $text{$_},
            context => $is_told ? ($context // '') =~ s/`//gr : 'incomplete',
        };
    } keys %text;
}


# KEY => 'MIN to MAX, DEFAULT'
sub numbers {
    my ($name) = @_;

    my ($table) = $code =~ /ngx_http_llm_${name}_words\[\] = \{(.*?)\n\};/s;
    my %number;

    return levels($table) if $name eq 'log';

    while ($table =~ /ngx_string\("(\w+)"\),\s*NGX_HTTP_LLM_WORD_(\w+),
        \s*offsetof\([^)]*\),\s*(\d+),\s*(\w+),\s*(\w+),\s*([01])\s*\}/gx)
    {
        my ($key, $type, $off, @values) = ($1, $2, $6, $4, $5, $3);

        for (grep { !/^\d/ } @values) {
            ($_) = $code =~ /#define $_\s+(\d+)/;
        }
        my ($min, $max, $default) = map { as_written($type, $_) } @values;
        ($max, $default) = ("$max bytes", default_text($key))
            if $type eq 'TEXT';

        $default = $off ? 'off' : $key eq 'open_max' ? default_of($key)
            : $default if !$values[2] && $type ne 'TEXT';
        $max .= ', or off' if $off;
        $number{$key} = $type eq 'FLAG' ? "on, off, $default"
            : "$min to $max, $default";
    }
    return %number;
}


# of llm_log, whose words have levels
sub levels {
    my ($table) = @_;

    my ($known) = $code =~ /ngx_http_llm_log_levels\[\] = \{(.*?)\n\};/s;
    my ($default) = $code =~ /define NGX_HTTP_LLM_LOG_DEFAULT\s+NGX_LOG_(\w+)/;
    my $levels = join ', ', $known =~ /"(\w+)"/g;

    return map { $_ => "$levels, " . lc $default } $table =~ /"(\w+)"/g;
}


sub as_written {
    my ($type, $n) = @_;

    return $type eq 'TIME'   ? in_words($n) =~ s/^600s$/10m/r
        : $type eq 'FRACTION' ? $n / 1000
        : $type eq 'PERCENT'  ? "$n%"
        : $type eq 'FLAG'     ? ($n ? 'on' : 'off')
        :                       $n;
}


sub default_text {
    my ($key) = @_;

    return ($code =~ /ngx_str_set\(&probe->$key, "(.*?)"\)/g)[-1] // 'none';
}


# the one that depends on another
sub default_of {
    my ($key) = @_;

    return $key eq 'open_max'
        && $code =~ /circuit->open_max\s*=
            \s*ngx_min\(circuit->open,\s*LLM_CIRCUIT_LONGEST\s*\/\s*4\)
            \s*\*\s*4;/x ? '4 × open' : 'unknown';
}


sub in_words {
    my ($ms) = @_;

    return $ms % 1000 ? "${ms}ms" : $ms % 86400000 ? $ms / 1000 . 's'
        : $ms / 86400000 . 'd';
}


sub documented_numbers {
    my ($text) = @_;

    return map { $_->[0] => "$_->[1], $_->[2]" } table($text, 'Key');
}


sub rows {
    my (%row) = @_;

    return [ map { "$_: $row{$_}" } sort keys %row ];
}


sub stock_defaults {
    my ($table)
        = $code =~ /ngx_http_llm_defaults\[\] = \{(.*?)\{ NULL/s;
    my ($ca) = $code =~ /#define NGX_HTTP_LLM_CA_FILE\s+"([^"]+)"/;

    $table =~ s/NGX_HTTP_LLM_CA_FILE/"$ca"/;
    $table =~ s/"\s*\n\s*"//g;
    return $table =~ /\{\s*"(\w+)",\s*"([^"]*)"/g;
}


# verdicts and errors

sub verdicts {
    my ($table) = $code =~ /llm_verdict_table\[\] = \{(.*?)\n\};/s;

    my @row;
    while ($table =~ /\{\s*(\d+),\s*(\d+),\s*(\w+),\s*(\w+),\s*(\w+)\s*\}/g) {
        push @row, join ' ', $1 == $2 ? $1 : "$1–$2", lc $3, lc $4, lc $5;
    }
    return @row;
}


sub goes_on {
    my ($body) = $code =~ /^llm_verdict_next\(.*?\n\{(.*?)\n\}/ms;
    my ($yes, $no) = split /return true;/, $body;

    return map({ lc $_ => 'yes' } $yes =~ /LLM_CLASS_(\w+):/g),
        map({ lc $_ => 'no' } $no =~ /LLM_CLASS_(\w+):/g);
}


sub error_rows {
    my ($text) = @_;

    $text =~ s/"\s*\n\s*"//g;
    my @row;
    while ($text =~ /\{\s*(\d+),((?:\s*"[^"]*",?){4})\s*\}/g) {
        my ($status, $words) = ($1, $2);
        push @row, [ $status, $words =~ /"([^"]*)"/g ];
    }
    return @row;
}


# [ WORD, STATUSES, CLASS ]: what the table says of words; an event in a
# stream has no status
sub error_words {
    my ($table) = @_;

    my %statuses;
    while ($code =~ /^    (S_\w+) = (S_\w+(?: \| S_\w+)+),/mg) {
        my ($name, $is) = ($1, $2);
        $statuses{$name} = [ map { @{ $statuses{$_} // [$_] } }
            $is =~ /\w+/g ];
    }

    my @words;
    while ($table =~ /\{\s*WORD,\s*"(\w+)",\s*([\w |]+),\s*(\w+)\s*\}/g) {
        my ($word, $when, $class) = ($1, $2, $3);
        my @when = map { @{ $statuses{$_} // [$_] } } $when =~ /\w+/g;
        my %when = map { $_ => 1 } grep { $_ ne 'S_EVENT' } @when;

        push @words, [
            $word,
            $when{S_ANY} ? 'any' : join(', ', map {
                $_ eq 'S_4XX' ? 'other 4xx' : s/^S_//r
            } sort keys %when),
            lc $class,
        ];
    }
    return @words;
}


# what a stream of the provider "openai" ends with when it stalls
sub error_events {
    my ($body) = $code =~ /^ngx_http_llm_error_event\(.*?\n\{(.*?)\n\}/ms;

    $body =~ s/"\s*\n\s*"//g;
    return map {
        s/^%s//r =~ s/%V/openai/r =~ s/%s/stalled/r =~ s/\\"/"/gr
            =~ s/\\n\\n$/\\n/r =~ s/\\n/\n/gr;
    } $body =~ /fmt = "((?:[^"\\]|\\.)*)"/g;
}


sub c_strings {
    return map {
        my ($list) = $code =~ /\b$_\[\]\s*=\s*\{(.*?)\n\};/s
            or die "no $_ in the code";
        $list =~ /"([^"]*)"/g;
    } @_;
}


# a status in which nothing is missing

sub status {
    my $gateway = LLM::Nginx->new;

    $gateway->write_conf(http => <<'CONF');
        resolver 127.0.0.1:{{port:nobody}};
        llm_zone llm:1m state=state;
        llm_observe on failure_threshold=1;
        llm_alert http://127.0.0.1:{{port:provider}};
        llm_provider p {
            endpoint http://127.0.0.1:{{port:provider}};
            circuit  failure_threshold=1;
            limit    rpm=100 tpm=100000 concurrency=100;
            probe;
        }
        llm_provider q { endpoint http://nobody.invalid; }
        upstream llm { llm_use p; llm_use q; }
        server {
            listen 127.0.0.1:{{port:provider}};
            return 503;
        }
        server {
            listen 127.0.0.1:{{port}};
            location /v1/      { llm_pass llm; }
            location = /plain  {
                proxy_pass http://127.0.0.1:{{port:provider}};
            }
            location = /status { llm_status; }
        }
CONF

    $gateway->start;
    $gateway->client->post('/v1/chat/completions', { model => 'm' });
    $gateway->client->get('/plain');
    return $gateway->client->get('/status?recent')->json;
}


sub fields {
    my ($value, $path) = @_;

    if (ref $value eq 'HASH') {
        my $prefix = defined $path ? "$path." : '';
        return map {
            my @below = fields($value->{$_}, "$prefix$_");
            ref $value->{$_} eq 'ARRAY' && $prefix ne ''
                ? ("$prefix$_", @below) : @below;
        } keys %$value;
    }

    return map { ref ? fields($_, "${path}[]") : () } @$value
        if ref $value eq 'ARRAY';

    return $path;
}


# examples

# What an example leaves out is put around it: it is a part of a whole.
sub accepts {
    my ($name, $context, $text) = @_;

    my ($main, $http) = ('', $text);

    # an address of its own would be one listen too many
    if ($context eq 'server' && $http !~ /^\s*listen /m) {
        $http = "listen 127.0.0.1:{{port}};\n$http";
    }

    if ($context eq 'main') {
        $text =~ s/^load_module modules\/ngx_http_llm_module\.so;\n//m
            or return fail("$name loads the module");
        $text =~ s/^events \{.*?\}\n//m;
        $text =~ s/^http \{\n(.*?)^\}\n//ms;
        ($main, $http) = ($text, $1);
    }
    $http = "server {\n$http}\n" if $context eq 'server';
    if ($context eq 'provider') {
        $http = "endpoint http://127.0.0.1:9;\n$http" if $http !~ /^endpoint/m;
        $http = "llm_provider example {\n$http}\n";
    }

    $nginx->write_conf(main => $main, http => whole($http));
    my ($well, $output) = $nginx->test_conf;
    ok $well, "$name is accepted" or diag($output);
}


sub whole {
    my ($http) = @_;

    $http = "llm_zone llm:1m;\n$http" if $http !~ /^\s*llm_zone /m;

    my %route = map { $_ => 1 } $http =~ /^\s*upstream (\w+)/mg;
    my %used  = map { $_ => 1 }
        $http =~ /\bllm_(?:pass|gate)\s+(\w+)/g;
    $http .= "upstream $_ { llm_use openai; }\n"
        for grep { !$route{$_} } sort keys %used;

    my %provider = map { $_ => 1 } $http =~ /^\s*llm_provider (\S+)/mg;
    my %asked    = map { $_ => 1 } $http =~ /\bllm_use\s+([\w.-]+)/g;
    $http .= "llm_provider $_ { endpoint https://127.0.0.1:9/v1; }\n"
        for grep { !$provider{$_} } sort keys %asked;

    $nginx->env($_ => /WEBHOOK/ ? 'https://127.0.0.1/hook' : 'a key')
        for $http =~ /\benv:(\w+)/g;

    $http =~ s{/var/cache/nginx/\w+}{\{\{prefix\}\}/cache}g;

    # a free port, and files of our own in the place of the system's
    $http =~ s/\blisten \S+?(;| ssl)/listen 127.0.0.1:{{port}}$1/g;
    $http =~ s{(?<![\w./])(/etc/nginx/[\w./-]+|/var/log/[\w./-]+)}
        {stand_in($1)}ge;
    return $http;
}


sub stand_in {
    my ($path) = @_;

    our $tls //= LLM::TLS->new('llm.example.com');
    my %file = (
        '.crt' => sub { slurp($tls->cert('llm.example.com')) },
        '.key' => sub { slurp($tls->key('llm.example.com')) },
        '.map' => sub { qq("Bearer token" team-a;\n) },
        '.log' => sub { '' },
    );
    my ($kind) = $path =~ /(\.\w+)$/;

    return $nginx->file(substr($path, 1),
        $kind && $file{$kind} ? $file{$kind}->() : "a key\n");
}
